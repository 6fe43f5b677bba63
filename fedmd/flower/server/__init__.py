"""The server over Flower: its nodes, and asking them."""
