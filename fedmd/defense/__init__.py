"""Memorization discrepancy, thresholds on it, and what is done to samples above them."""
