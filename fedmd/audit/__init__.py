"""What happened to every message: a hash-chained trail, and the batches of quarantined clients. Knows no mode."""
