"""Who watches a run while it lasts."""
