"""Latents to frames and back."""
