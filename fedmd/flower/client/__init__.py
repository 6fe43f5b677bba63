"""The client over Flower: what a node answers."""
