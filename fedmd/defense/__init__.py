"""Memorization discrepancy, limits of it, and what is done about samples and updates beyond them."""
