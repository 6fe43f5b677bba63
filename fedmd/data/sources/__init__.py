"""Where images come from: one class each, decoded once and mapped from the cache ever after."""
