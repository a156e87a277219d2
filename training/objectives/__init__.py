"""Training objectives, one per file; each docstring gives its equation."""
