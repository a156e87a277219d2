"""How a run goes: the trainer, its checkpoints and logs, and its processes."""
