"""The server's online learner and its session: what a federation does, without Flower."""
