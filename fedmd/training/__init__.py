"""Burn-in, online steps, local epochs and evaluation of one model."""
