"""Exports that several tests read; each is made once."""

import logging
from pathlib import Path

import golden
import pytest
import small
import torch

from pyrf.bundle import Bundle, load_bundle
from pyrf.config import StreamConfig
from pyrf.export.exporter import FolderWriter, export_onnx
from pyrf.export.student import student_graphs
from pyrf.models.dit import WanModel

logging.getLogger("torch.__trace").propagate = False  # pytest would keep a record of every fake tensor


def student_export(model: WanModel, stream: StreamConfig, height: int, width: int, parent: Path) -> Path:
    """A folder with the student's graphs alone."""
    folder = parent / "export"
    with FolderWriter(folder) as writer:
        writer.add(student_graphs(model, stream, height, width), "student.weights")
        writer.finish(
            dtype=str(model.dtype).removeprefix("torch."),
            fp8=False,
            model=model.config,
            stream=stream,
            height=height,
            width=width,
            weights="",
        )
    return folder


@pytest.fixture(scope="session")
def golden_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of the golden data, in float32."""
    return student_export(golden.model(), golden.configs()[1], 8, 12, tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def bfloat16_student(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of the small bundle, in bfloat16."""
    return student_export(
        bundle.transformer(torch.bfloat16), bundle.stream_config, 4, 6, tmp_path_factory.mktemp("bfloat16")
    )


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
