"""Flower's strategies, and ours."""
