"""Adapters in exported graphs: merged before the export, shown as torch shows them, and fixed then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from pyrf.bundle import load_bundle
from pyrf.export.store import check_export
from pyrf.pipeline import StreamingPipeline
from tests.support import adapters, networks

PROMPT = "a red circle moves right"


@pytest.mark.filterwarnings("ignore::pyrf.streaming.notices.PromptWarning")
def test_graphs_have_their_adapters_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRF_CACHE", str(tmp_path / "cache"))
    saved = str(networks.bundle(tmp_path / "small"))
    file = tmp_path / "ink.safetensors"
    save_file(adapters.keys("comfy", adapters.factors((*adapters.LINEARS, *adapters.REST))), file)
    plain = StreamingPipeline.from_pretrained(saved)
    torchs, graphs = (
        StreamingPipeline.from_pretrained(saved, backend=name, adapters=[(file, 0.5)])
        for name in ("torch", "onnxruntime")
    )
    base, expected, found = (pipe(PROMPT, 20, seed=2).frames.astype(int) for pipe in (plain, torchs, graphs))
    assert np.abs(expected - found).max() <= 1
    assert np.abs(expected - base).max() > 20
    assert graphs.adapters == {"ink": 0.5}
    with graphs.stream(PROMPT) as stream, pytest.raises(ValueError, match=r"built in.*use backend torch"):
        stream.set_adapters({"ink": 1.0})
    (folder,) = (tmp_path / "cache" / "onnx").iterdir()
    check_export(folder, load_bundle(saved, adapters=[(file, 0.5)]), dtype="float32")
    with pytest.raises(ValueError, match="exported from another weights"):
        check_export(folder, load_bundle(saved), dtype="float32")
