"""Flower at the edge: what travels, the two apps with the round loop's transport, and the strategies."""
