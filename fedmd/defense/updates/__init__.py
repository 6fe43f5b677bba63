"""The defence of the update mode: model updates are judged, shortened, rejected."""
