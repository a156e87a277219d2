"""One place gives everybody the transformer's weights, so that they can be changed there before use."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pyrf.backends.choice import load_backend
from pyrf.bundle import Bundle, load_bundle
from pyrf.export import exporter
from pyrf.models.dit.model import WanModel
from tests.support import networks
from tests.support.bundle_checks import same

ROOT = Path(__file__).parents[2]


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Other weights than those on disk, as a merged adapter would make them."""
    weights = networks.dit(seed=7).state_dict()
    monkeypatch.setattr(Bundle, "transformer_weights", lambda self: (dict(weights), self.path))
    return weights


def test_the_torch_backend_takes_them(saved: Path, changed: dict[str, Tensor]) -> None:
    bundle = load_bundle(saved)
    backend = load_backend(
        "torch",
        bundle,
        bundle.codec(),
        dtype=torch.float32,
        device=torch.device("cpu"),
        exported=None,
    )
    (model,) = [value for value in vars(backend).values() if isinstance(value, WanModel)]
    assert same(model.state_dict(), changed)


def test_the_exporter_takes_them(
    saved: Path, changed: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with it every backend that runs exported graphs."""
    taken: list[dict[str, Tensor]] = []

    def student_graphs(model: nn.Module, *_: object, **__: object) -> dict[str, object]:
        taken.append(model.state_dict())
        return {}

    monkeypatch.setattr(exporter, "student_graphs", student_graphs)
    for name in ("decoder_graphs", "text_graphs"):
        monkeypatch.setattr(exporter, name, lambda *_, **__: {})
    monkeypatch.setattr(exporter, "write_graphs", lambda *_: None)
    exporter.export_onnx(load_bundle(saved), tmp_path / "out", dtype="float32")
    assert len(taken) == 1
    assert same(taken[0], changed)


def test_nobody_reads_them_elsewhere() -> None:
    readers = {"dit_tensors", "read_part", "find_weights"}
    for folder in ("pyrf", "export", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            if (ROOT / "pyrf" / "bundle") in path.parents:
                continue
            names = {
                node.attr if isinstance(node, ast.Attribute) else node.id
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute | ast.Name)
            }
            assert not names & readers, path
