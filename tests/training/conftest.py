"""Processes of a training, for tests."""

import functools
import importlib

import pytest
import torch.multiprocessing
import torch.utils.tensorboard
from torch.multiprocessing import start_processes


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`parallel.launch` forks: a new process that imports torch takes seconds, and each test has several."""
    forked = functools.partial(start_processes, start_method="fork")
    monkeypatch.setattr(torch.multiprocessing, "spawn", forked)
    importlib.import_module("pyrf.training.wan.recipe")
    importlib.import_module("pyrf.evaluation.scores.motion")
    importlib.import_module("cv2")
