"""Shared by all tests; its presence puts this folder on the import path (`import golden`)."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "kernels"))  # the emulator, for the ops' tests


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small bundle with random weights; read-only by agreement."""
    from random_bundle import save_random_bundle

    return save_random_bundle(tmp_path_factory.mktemp("bundles") / "random")
