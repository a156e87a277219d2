"""Scores: frames and prompts in, named numbers out. The rewards of training are scores."""
