"""Exports kept in the cache folder: made once, made again when damaged or when anything changed."""

import shutil
from dataclasses import replace

import pytest
from safetensors.torch import save_file

from pyrf.bundle import load_bundle
from pyrf.export import exporter, store
from pyrf.export.errors import ExportError
from pyrf.export.fingerprint import bundle_fingerprint
from pyrf.export.manifest import load_manifest
from pyrf.partial import KeptError, Partial
from tests.support import adapters, exports, networks


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The cache in a new folder, and the exports made into it: copies of one that is there."""
    monkeypatch.setenv("PYRF_CACHE", str(tmp_path))
    calls = []

    def copy(bundle, folder, **arguments):
        calls.append(arguments)
        shutil.copytree(exports.exported("float32"), folder)

    monkeypatch.setattr(exporter, "export_onnx", copy)
    return calls


def stored(bundle, height=32):
    return store.stored_export(bundle, dtype="float32", height=height, width=48)


def test_an_export_is_made_once(bundle, made):
    first = stored(bundle)
    assert stored(bundle) == first
    assert len(made) == 1


def test_what_changes_the_graphs_has_a_folder_of_its_own(bundle, made, tmp_path):
    first = stored(bundle)
    window = replace(bundle, stream_config=replace(bundle.stream_config, window_frames=6))
    student = tmp_path / "student.safetensors"
    shutil.copy(bundle.path / "transformer" / "diffusion_pytorch_model.safetensors", student)
    others = [stored(bundle, height=48), stored(window), stored(replace(bundle, student=student))]
    assert len({first, *others}) == 4


def test_a_damaged_export_is_made_again(bundle, made, caplog):
    folder = stored(bundle)
    (folder / "denoise.onnx").write_bytes(b"")
    assert stored(bundle) == folder
    assert len(made) == 2
    assert "exporting it again" in caplog.text
    load_manifest(folder)


def test_another_process_may_win_the_race(bundle, made, monkeypatch):
    def lose(bundle, folder, **arguments):
        made.append(arguments)
        folder.mkdir(parents=True)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(exporter, "export_onnx", lose)
    assert stored(bundle).is_dir()


def test_what_a_killed_export_left_is_removed_but_nothing_of_a_living_one(bundle, made):
    kept = store.cache_folder() / "onnx"
    for name in (".00000000.tmp.killed", "whole"):
        (kept / name).mkdir(parents=True)
    busy = Partial(kept / "busy", folder=True)
    folder = stored(bundle)
    assert set(kept.iterdir()) == {busy.path, kept / "whole", folder}
    busy.remove()


def test_the_slower_of_two_exports_leaves_nothing(bundle, made, monkeypatch, tmp_path):
    """It is whole, but the cache needs it once."""
    late = tmp_path / "late"
    late.mkdir()

    def lose(bundle, folder, **arguments):
        folder.mkdir(parents=True)
        raise KeptError(folder, late, "Directory not empty")

    monkeypatch.setattr(exporter, "export_onnx", lose)
    assert stored(bundle).is_dir()
    assert not late.exists()


def test_a_cache_that_cannot_be_written_is_a_clear_error(bundle, made, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYRF_CACHE", str(tmp_path / "file"))
    with pytest.raises(ExportError, match="cannot write"):
        stored(bundle)


def test_the_fingerprint_is_of_the_files_that_are_read(bundle, tmp_path):
    path = shutil.copytree(bundle.path, tmp_path / "bundle")
    before = bundle_fingerprint(load_bundle(path))
    (path / "exported").mkdir()
    (path / "exported" / "manifest.json").write_text("{}")
    (path / "transformer" / "other.pt").write_bytes(b"1")
    assert bundle_fingerprint(load_bundle(path)) == before
    read = [*path.rglob("config.json"), *path.rglob("*.safetensors"), path / "tokenizer" / "tokenizer.json"]
    assert len(read) == 7
    loaded = load_bundle(path)
    for file in read:
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        assert bundle_fingerprint(loaded) != before
        file.write_bytes(content)


def test_the_fingerprint_sees_the_shards_of_a_student(bundle, tmp_path):
    index = tmp_path / "student.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "1.safetensors"}}')
    found = set()
    for content in (b"1", b"2"):
        (tmp_path / "1.safetensors").write_bytes(content)
        found.add(bundle_fingerprint(replace(bundle, student=index)))
    assert len(found) == 2


def test_an_export_of_other_weights_is_refused(bundle, tmp_path):
    folder = exports.exported("float32")
    assert store.check_export(folder, bundle, dtype="float32") == load_manifest(folder)
    student = tmp_path / "student.safetensors"
    shutil.copy(bundle.path / "transformer" / "diffusion_pytorch_model.safetensors", student)
    window = replace(bundle, stream_config=replace(bundle.stream_config, window_frames=6))
    for other, dtype, name in (
        (replace(bundle, student=student), "float32", "weights"),
        (window, "float32", "stream"),
        (bundle, "float16", "dtype"),
    ):
        with pytest.raises(ExportError, match=f"exported from another {name}"):
            store.check_export(folder, other, dtype=dtype)
    alpha = replace(bundle, stream_config=replace(bundle.stream_config, sink_alpha=0.5))
    store.check_export(folder, alpha, dtype="float32")


def test_an_export_of_another_precision_is_refused(bundle):
    plain, narrow = exports.exported("float32"), exports.exported("float32", "fp8-attention")
    store.check_export(narrow, bundle, dtype="float32", precision="fp8-attention")
    wanted = (
        "exported with no precision, got precision fp8-attention; leave precision out, or export it again"
    )
    with pytest.raises(ExportError, match=wanted):
        store.check_export(plain, bundle, dtype="float32", precision="fp8-attention")
    wanted = "exported with precision fp8-attention, got no precision; give precision fp8-attention, or"
    with pytest.raises(ExportError, match=wanted):
        store.check_export(narrow, bundle, dtype="float32")


def test_a_precision_has_an_export_of_its_own(bundle, made):
    narrow = store.stored_export(bundle, dtype="float32", height=32, width=48, precision="fp8-attention")
    assert narrow != stored(bundle)
    assert len(made) == 2


def test_adapters_are_part_of_an_export(bundle, made, tmp_path):
    """By what they add: neither the file's name nor one that is switched off makes another export."""
    file, parts = tmp_path / "ink.safetensors", adapters.factors(model=networks.dit(exports.MODEL))
    save_file(adapters.keys("comfy", parts), file)
    renamed = tmp_path / "renamed.safetensors"
    shutil.copy(file, renamed)
    other = tmp_path / "other.safetensors"
    save_file(adapters.keys("comfy", parts, alpha=1.0), other)

    def fingerprint(*specs):
        return bundle_fingerprint(load_bundle(bundle.path, adapters=specs))

    base, inked = fingerprint(), fingerprint(file)
    assert fingerprint((file, 0.0)) == base
    assert fingerprint(renamed) == inked
    assert len({base, inked, fingerprint((file, 0.5)), fingerprint(other), fingerprint(file, other)}) == 5
    with_adapter = load_bundle(bundle.path, adapters=[file])
    assert stored(bundle) != stored(with_adapter)
    assert len(made) == 2
