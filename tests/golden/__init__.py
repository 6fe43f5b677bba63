"""Golden runs: small federations whose numbers no redesign may change."""
