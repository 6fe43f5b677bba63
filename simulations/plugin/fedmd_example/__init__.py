"""Plug-ins for fedmd, as an example."""
