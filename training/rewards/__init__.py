"""Rewards: frames and prompts in, named scores out."""
