"""Flower at the edge: messages, apps, the attack mod and the round loop's transport."""
