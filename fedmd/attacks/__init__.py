"""Poisoning: what the colluding clients send, phase by phase. One attack is one class in one file of `catalogue`."""
