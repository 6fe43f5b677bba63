"""Image sources, the disjoint split, partitions, and what each client sees when."""
