"""Training students of the published Wan models."""
