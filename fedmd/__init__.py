"""fedmd: federated streaming learning under accumulative poisoning, defended by Memorization Discrepancy."""
