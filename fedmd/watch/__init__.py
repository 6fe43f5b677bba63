"""Runs, sweeps and studies while they go on, watched from their folders: in a terminal, or as a page."""
