"""`pyrf export` end to end, and its refusals."""

import sys

import pytest

from pyrf import cli
from pyrf.export import targets
from pyrf.export.manifest import load_manifest


def test_it_writes_a_folder_and_says_what_is_in_it(bundle, exports, tmp_path, capsys, monkeypatch):
    """The tracing itself has tests of its own: here its result is a copy."""
    import shutil

    from pyrf.export import exporter

    def copy(bundle, folder, *, report, **arguments):
        assert arguments["dtype"] == "float32"
        report("the student")
        shutil.copytree(exports("float32"), folder)
        return load_manifest(folder)

    monkeypatch.setattr(exporter, "export_onnx", copy)
    out = tmp_path / "out"
    assert cli.run(["export", str(bundle.path), "--to", "onnx", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "s  the student" in printed.err
    rows = dict(line.split(maxsplit=1) for line in printed.out.splitlines())
    assert set(load_manifest(out).graphs) | {"files", "parity", f"{out}:"} == set(rows)
    assert rows["denoise"].endswith("nodes")
    assert "of 4 chunks in ONNX Runtime" in rows["parity"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "tflite"], "--to must be one of onnx, tensorrt, got 'tflite'"),
        (["--check", "-1"], "--check must be 0 or more, got -1"),
        (["--dtype", "int8"], "dtype must be one of float32, float16, bfloat16, fp8, got 'int8'"),
        (["--height", "40"], "height must be a positive multiple of 16, got 40"),
    ],
)
def test_bad_arguments_write_nothing(bundle, tmp_path, capsys, arguments, message):
    assert cli.run(["export", str(bundle.path), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_it_says_what_to_install(bundle, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("onnx", "pyrf.export."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    monkeypatch.setitem(sys.modules, "pyrf.export.targets", targets)
    assert cli.run(["export", str(bundle.path), "--out", str(tmp_path / "out")]) == 2
    assert "exporting needs onnx_ir; run pip install '.[onnx]' in a clone of pyrf" in capsys.readouterr().err
