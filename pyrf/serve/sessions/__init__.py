"""Sessions: who streams, when, and at which rate."""
