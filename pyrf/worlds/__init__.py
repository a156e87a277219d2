"""Synthetic worlds: endless videos with captions, and an exact judge of what a video shows."""
