"""The folder from which a real federation is run: scripts, settings and service files for its operator."""
