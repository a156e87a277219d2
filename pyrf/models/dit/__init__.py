"""The video transformer, and what its self-attention may look at."""
