"""Accumulative poisoning: what the colluding clients send, phase by phase."""
