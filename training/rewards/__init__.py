"""Older paths of `pyrf.evaluation.scores`, kept for one release."""
