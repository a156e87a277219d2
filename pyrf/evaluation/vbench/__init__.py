"""VBench the published way: videos of its prompts, its own code's scores, and the totals."""
