"""The defence of the streaming mode: samples are judged, corrected, rejected."""
