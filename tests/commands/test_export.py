"""`pyrf export` end to end, and its refusals."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from pyrf import cli
from pyrf.export import exporter, targets
from pyrf.export.manifest import MANIFEST, file_entry, load_manifest
from pyrf.files import whole_folder
from tests.support import exports


@pytest.fixture
def spoil(monkeypatch):
    """In place of tracing, which has tests of its own: a copy of an export, with a value in its weights."""

    def patch(name=None, value=0.0):
        def copy(bundle, folder, *, check, report, **arguments):
            assert arguments["dtype"] == "float32"
            report("the student")
            narrow = [arguments["precision"]] if arguments["precision"] else []
            with whole_folder(folder) as temporary:
                shutil.copytree(exports.exported("float32", *narrow), temporary, dirs_exist_ok=True)
                if name is not None:
                    overwrite(temporary, name, value)
                if check is not None:
                    check(temporary)
            return load_manifest(folder)

        monkeypatch.setattr(exporter, "export_onnx", copy)

    return patch


def overwrite(folder, name, value):
    """Put a value into a quarter of some weights; the manifest says what then is there."""
    weights = np.fromfile(folder / name, np.float32)
    weights[len(weights) // 2 : -len(weights) // 4] = value
    weights.tofile(folder / name)
    manifest = load_manifest(folder, check_content=False)
    manifest = replace(manifest, files={**manifest.files, name: file_entry(folder / name)})
    (folder / MANIFEST).write_text(manifest.to_json())


def run(out, *arguments):
    return cli.run(["export", str(exports.bundle().path), "--out", str(out), *arguments])


def test_it_writes_a_folder_and_says_what_is_in_it(spoil, tmp_path, capsys):
    spoil()
    out = tmp_path / "out"
    assert run(out, "--to", "onnx") == 0
    printed = capsys.readouterr()
    assert "s  the student" in printed.err
    rows = dict(line.split(maxsplit=1) for line in printed.out.splitlines())
    assert set(load_manifest(out).graphs) | {"files", "parity", f"{out}:"} == set(rows)
    assert rows["denoise"].endswith("nodes")
    assert "of 4 chunks in ONNX Runtime" in rows["parity"]


@pytest.mark.parametrize(
    ("name", "value"), [("student.weights", 0.0), ("student.weights", np.nan), ("decoder.weights", 0.0)]
)
def test_graphs_that_do_not_compute_what_torch_does_are_refused(spoil, tmp_path, capsys, name, value):
    spoil(name, value)
    assert run(tmp_path / "out", "--check", "1") == 2
    printed = capsys.readouterr()
    assert "the float32 graphs do not compute what torch computes" in printed.err
    assert ("by nan at most" in printed.err) == bool(np.isnan(value))
    assert not printed.out
    assert list(tmp_path.iterdir()) == []


def test_without_a_check_they_are_written(spoil, tmp_path):
    spoil("student.weights")
    assert run(tmp_path / "out", "--check", "0") == 0
    assert load_manifest(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "tflite"], "--to must be one of onnx, tensorrt, got 'tflite'"),
        (["--check", "-1"], "--check must be 0 or more, got -1"),
        (["--dtype", "int8"], "dtype must be one of float32, float16, bfloat16, fp8, got 'int8'"),
        (["--height", "40"], "height must be a positive multiple of 16, got 40"),
        (["--precision", "fp8"], "precision fp8 finds the scales of weights and tokens while it runs"),
        (["--precision", "fp8-attention", "--dtype", "fp8"], "goes with dtype float32, float16 or bfloat16"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path, capsys, arguments, message):
    assert run(tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_precision_reaches_graphs_check_and_stream(spoil, tmp_path, capsys):
    spoil()
    out = tmp_path / "out"
    assert run(out, "--precision", "fp8-attention", "--check", "1") == 0
    assert "of 1 chunk in ONNX Runtime with torch in float32 with fp8-attention" in capsys.readouterr().out
    assert load_manifest(out).precision == "fp8-attention"
    asked = ["generate", "a red circle", "-o", str(tmp_path / "out.mp4"), "--seconds", "1"]
    asked += ["--model", str(exports.bundle().path), "--backend", "onnxruntime", "--exported", str(out)]
    assert cli.run(asked) == 2
    assert "exported with precision fp8-attention, got no precision" in capsys.readouterr().err
    assert cli.run([*asked, "--precision", "fp8-attention"]) == 0
    assert (tmp_path / "out.mp4").is_file()


@pytest.mark.parametrize("check", ["0", "4"])
def test_without_the_packages_it_says_what_to_install(tmp_path, capsys, monkeypatch, check):
    path = exports.bundle().path
    for name in [name for name in sys.modules if name.startswith(("onnx", "pyrf.export.", "pyrf.backends."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    monkeypatch.setitem(sys.modules, "pyrf.export.targets", targets)
    assert cli.run(["export", str(path), "--out", str(tmp_path / "out"), "--check", check]) == 2
    assert "exporting needs onnx_ir; run pip install '.[onnx]' in a clone of pyrf" in capsys.readouterr().err
