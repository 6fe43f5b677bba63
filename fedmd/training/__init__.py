"""Online steps, local epochs and evaluation of one model."""
