"""Scores: frames and prompts in, named numbers out."""
