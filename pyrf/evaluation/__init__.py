"""How well a model does: streams of held-out prompts, and scores of videos."""
