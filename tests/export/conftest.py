"""Exports that several tests read; each is made once."""

from pathlib import Path

import pytest

from pyrf.bundle import Bundle
from pyrf.config import LatentSize
from pyrf.export.exporter import export_student
from tests.support import exports, golden


@pytest.fixture(scope="session")
def golden_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of the golden data, in float32."""
    folder = tmp_path_factory.mktemp("golden") / "export"
    export_student(golden.model(), golden.configs()[1], folder, LatentSize(8, 12))
    return folder


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """A small bundle with random weights."""
    return exports.bundle()
