"""Training a small model from nothing, on a synthetic world."""
