"""Manifests: what is written is read back; what is damaged, cut off or of another kind is refused."""

import json
import shutil

import pytest

from pyrf.export.errors import ExportError
from pyrf.export.manifest import Manifest, load_manifest
from tests.support import exports


@pytest.fixture
def folder(golden_export, tmp_path):
    return shutil.copytree(golden_export, tmp_path / "export")


def test_round_trip(folder):
    manifest = load_manifest(folder)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {"manifest.json"}


def test_round_trip_with_a_cache_in_e4m3():
    manifest = load_manifest(exports.exported("bfloat16", "fp8-attention"))
    assert (manifest.dtype, manifest.precision, manifest.cache_dtype) == (
        "bfloat16",
        "fp8-attention",
        "float8_e4m3fn",
    )
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_manifest_from_before_there_was_a_precision_has_none(folder):
    values = json.loads((folder / "manifest.json").read_text())
    del values["precision"]
    (folder / "manifest.json").write_text(json.dumps(values))
    manifest = load_manifest(folder)
    assert (manifest.precision, manifest.cache_dtype) == (None, "float32")


def test_a_precision_of_a_later_pyrf_is_refused(folder):
    values = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**values, "precision": "int4"}))
    with pytest.raises(ExportError, match="precision int4, this pyrf reads fp8-attention or none"):
        load_manifest(folder)


def test_a_truncated_file_is_refused(folder):
    path = folder / "denoise.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"denoise.onnx has \d+ bytes instead of \d+; export"):
        load_manifest(folder, check_content=False)


def test_a_flipped_bit_is_refused(folder):
    path = folder / "student.weights"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    load_manifest(folder, check_content=False)
    with pytest.raises(ExportError, match=r"student.weights is damaged"):
        load_manifest(folder)


def test_a_missing_file_is_refused(folder):
    (folder / "clean.onnx").unlink()
    with pytest.raises(ExportError, match=r"clean.onnx is missing"):
        load_manifest(folder)
    with pytest.raises(ExportError, match="no such file; export the bundle"):
        load_manifest(folder / "elsewhere")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "null"])
def test_a_stale_or_foreign_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ExportError, match=r"manifest.json: damaged .*; export the bundle again"):
        load_manifest(folder)


def test_another_format_is_refused(folder):
    values = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(ExportError, match="format 99, this pyrf reads 1"):
        load_manifest(folder)
