"""Shared by all tests; its presence puts this folder on the import path (`import golden`)."""

import sys
from pathlib import Path

import pytest

for folder in ("kernels", "ops"):  # the emulator, for the tests of ops and backends
    sys.path.append(str(Path(__file__).parent / folder))


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small bundle with random weights; read-only by agreement."""
    from random_bundle import save_random_bundle

    return save_random_bundle(tmp_path_factory.mktemp("bundles") / "random")
