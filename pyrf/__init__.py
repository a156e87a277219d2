"""Real-time streaming text-to-video with Reward Forcing (arXiv 2512.04678)."""

__version__ = "0.1.0"
