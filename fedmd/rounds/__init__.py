"""The round, once for both modes, and the two servers that it moves; without Flower."""
