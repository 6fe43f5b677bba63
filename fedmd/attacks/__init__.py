"""Poisoning: what the colluding clients send, phase by phase."""
