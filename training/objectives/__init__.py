"""Training objectives, one a file; each docstring gives its equation."""
