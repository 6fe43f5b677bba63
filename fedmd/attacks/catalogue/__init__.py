"""The attacks, one a file: a new file here is a new attack. How to write one: see `fedmd.registry`."""
