"""The ablation of the paper in miniature."""
