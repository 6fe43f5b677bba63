"""report.html: one self-contained page for a run, a sweep or a comparison. No script, no network."""
