"""Trainings of the valley: its detector, its codec and its networks, one module a stage."""
