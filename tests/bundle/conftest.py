"""A small bundle on disk."""

import shutil
from pathlib import Path

import pytest

from tests.support import networks


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test changes."""
    return networks.bundle(tmp_path_factory.mktemp("saved") / "small")


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "small"))
