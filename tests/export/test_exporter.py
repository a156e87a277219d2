"""An export is refused early, and written whole or not at all."""

import pytest

from pyrf.export import exporter
from pyrf.export.errors import ExportError
from pyrf.export.exporter import export_onnx
from pyrf.export.manifest import load_manifest


def test_arguments_are_checked_before_work(bundle, tmp_path):
    with pytest.raises(FileExistsError, match="exists; give a new directory"):
        export_onnx(bundle, tmp_path)
    with pytest.raises(ExportError, match="dtype must be one of float32, float16, bfloat16, fp8, got 'int4'"):
        export_onnx(bundle, tmp_path / "new", dtype="int4")
    for precision, dtype, message in (
        ("fp8", "float32", "while it runs, which no graph does; export with precision fp8-attention"),
        ("fp7", "float32", "precision must be fp8-attention, or left out, got 'fp7'"),
        ("fp8-attention", "fp8", "goes with dtype float32, float16 or bfloat16, got fp8"),
    ):
        with pytest.raises(ExportError, match=message):
            export_onnx(bundle, tmp_path / "new", dtype=dtype, precision=precision)
    with pytest.raises(ValueError, match="height must be a positive multiple of 16, got 40; try 32"):
        export_onnx(bundle, tmp_path / "new", height=40)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _nothing_is_traced(monkeypatch):
    for name in ("decoder_graphs", "text_graphs", "student_graphs"):
        monkeypatch.setattr(exporter, name, lambda *_, **__: {})


@pytest.mark.usefixtures("_nothing_is_traced")
def test_a_check_sees_the_whole_folder_before_it_has_its_name(bundle, tmp_path):
    seen = []

    def check(folder):
        seen.append(load_manifest(folder))
        assert not (tmp_path / "new").exists()

    assert export_onnx(bundle, tmp_path / "new", check=check) == seen[0]
    assert load_manifest(tmp_path / "new") == seen[0]


@pytest.mark.usefixtures("_nothing_is_traced")
def test_a_check_that_fails_leaves_nothing(bundle, tmp_path):
    def check(folder):
        raise ExportError("no")

    with pytest.raises(ExportError, match="no"):
        export_onnx(bundle, tmp_path / "new", check=check)
    assert list(tmp_path.iterdir()) == []
