"""Shared by all tests."""

import os
from pathlib import Path

import pytest

from tests.support.random_bundle import save_random_bundle

# Commands that name no model, in this process and in those that tests start, run the small one.
os.environ["PYRF_MODEL"] = "tiny"


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small bundle with random weights; read-only by agreement."""
    return save_random_bundle(tmp_path_factory.mktemp("bundles") / "random")
