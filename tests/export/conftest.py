"""Exports that several tests read; each is made once."""

import logging
from pathlib import Path

import pytest
import torch

from pyrf.bundle import Bundle, load_bundle
from pyrf.export.exporter import export_onnx, export_student
from tests.support import golden, networks

logging.getLogger("torch.__trace").propagate = False  # pytest would keep a record of every fake tensor


@pytest.fixture(scope="session")
def golden_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of the golden data, in float32."""
    folder = tmp_path_factory.mktemp("golden") / "export"
    export_student(golden.model(), golden.configs()[1], folder, height=8, width=12)
    return folder


@pytest.fixture(scope="session")
def bfloat16_student(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of the small bundle, in bfloat16."""
    folder = tmp_path_factory.mktemp("bfloat16") / "export"
    export_student(bundle.transformer(torch.bfloat16), bundle.stream_config, folder, height=4, width=6)
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small bundle with random weights."""
    return load_bundle(networks.bundle(tmp_path_factory.mktemp("small") / "bundle"))


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
