"""Exports that several tests read; each is made once."""

import logging
from pathlib import Path

import golden
import pytest
import small

from pyrf.bundle import Bundle, load_bundle
from pyrf.export.exporter import FolderWriter, export_onnx
from pyrf.export.student import student_graphs

logging.getLogger("torch.__trace").propagate = False  # pytest would keep a record of every fake tensor


@pytest.fixture(scope="session")
def golden_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of the golden data, in float32."""
    folder = tmp_path_factory.mktemp("golden") / "export"
    model, (config, stream) = golden.model(), golden.configs()
    with FolderWriter(folder) as writer:
        writer.add(student_graphs(model, stream, 8, 12), "student.weights")
        writer.finish(
            dtype="float32", fp8=False, model=config, stream=stream, height=8, width=12, weights="golden"
        )
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small bundle with random weights."""
    return load_bundle(small.bundle(tmp_path_factory.mktemp("small") / "bundle"))


@pytest.fixture(scope="session")
def exports(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory):
    """Exports of that bundle by dtype, made when asked for."""
    made: dict[str, Path] = {}

    def export(dtype: str) -> Path:
        if dtype not in made:
            made[dtype] = tmp_path_factory.mktemp(dtype) / "export"
            export_onnx(bundle, made[dtype], dtype=dtype)
        return made[dtype]

    return export
