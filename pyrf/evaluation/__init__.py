"""How good videos are: streams of held-out prompts, judged by their world, and scores of any clip."""
