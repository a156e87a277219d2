"""Files that are something else are named for what they are, wherever in a model they stand."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from pyrf.bundle import load_bundle
from pyrf.bundle.sniff import JSON, PICKLE, SAFETENSORS, TORCH, form_of
from tests.support import networks
from tests.support.bundle_checks import refused


def archive(names: list[str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return data.getvalue()


def saved_by_torch(content: object, *, new: bool = True) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, _use_new_zipfile_serialization=new)
    return data.getvalue()


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        file.addfile(tarfile.TarInfo("weights.pt"))
    return data.getvalue()


def script() -> bytes:
    data = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), data)
    return data.getvalue()


def graph() -> bytes:
    made = onnx.helper.make_graph([], "g", [], [])
    return bytes(onnx.helper.make_model(made, producer_name="pytorch").SerializeToString())


def array() -> bytes:
    data = io.BytesIO()
    np.save(data, np.zeros(3))
    return data.getvalue()


def header(values: object, data: bytes = b"") -> bytes:
    text = json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text + data


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 5676070424\n"
STRANGE = {
    "a Git LFS pointer": POINTER,
    "a web page": b"<!DOCTYPE html><html><body>Sign in</body></html>\n",
    "a web page, such": b"\n  <HTML lang=en><head>",
    "a text that begins 'Entry not found'": b"Entry not found",
    "empty": b"",
    "a file of zeros": bytes(4096),
    "a file of white space": b" \n",
    "a GGUF file": b"GGUF\x03\0\0\0" + bytes(64),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "an ONNX graph": graph(),
    "a TensorFlow model": b"\x08\x01\x12\xab\x01",
    "a msgpack file": b"\x81\xa6params\x81\xa1a\xc5\x01\x2c" + bytes(300),
    "a NumPy array": array(),
    "an archive of NumPy arrays": archive(["a.npy"]),
    "a zip archive without weights": archive(["readme.txt"]),
    "a truncated torch file or zip archive": saved_by_torch({"a": torch.zeros(64)})[:-100],
    "a TorchScript program": script(),
    "a tar archive": tar(),
    "a gzip archive": gzip.compress(b"weights"),
    "a picture": b"\x89PNG\r\n\x1a\n",
    "a picture or video": b"\0\0\0 ftypisom",
    "a truncated safetensors file: it has": save({"a": torch.zeros(64)})[:-10],
    "a truncated safetensors file: it ends within its header": save({"a": torch.zeros(64)})[:20],
    "a damaged safetensors file: it has": save({"a": torch.zeros(64)}) + b"more",
    "a damaged safetensors file: its header": struct.pack("<Q", 9) + b"{nothing}",
    "quantised to F4": header({"x": {"dtype": "F4", "shape": [4, 4], "data_offsets": [0, 8]}}, bytes(8)),
    "no weights": b"\x07\xff\xfe\x00garbage",
}
WEIGHTS = ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
TEXTS = ("model_index.json", "transformer/config.json", "vae/config.json", "tokenizer/tokenizer.json")


@pytest.mark.parametrize("what", STRANGE)
def test_a_student_that_is_something_else(saved: Path, tmp_path: Path, what: str) -> None:
    for name in ("student.pt", "student.pth", "student.safetensors", "student.ckpt", "student.bin"):
        (tmp_path / name).write_bytes(STRANGE[what])
        assert refused(saved, student=tmp_path / name).startswith(f"{tmp_path / name}: {what}")


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.parametrize("file", [*WEIGHTS, TRANSFORMER])
def test_weights_of_a_bundle_that_are_something_else(copied: Path, file: str, what: str) -> None:
    """Told before anything is loaded."""
    (copied / file).write_bytes(STRANGE[what])
    assert refused(copied).startswith(f"{copied / file}: {what}")


@pytest.mark.parametrize("what", ["a Git LFS pointer", "a web page", "empty", "a text that begins 'Entry"])
@pytest.mark.parametrize("file", TEXTS)
def test_texts_of_a_bundle_that_are_something_else(copied: Path, file: str, what: str) -> None:
    content = next(content for name, content in STRANGE.items() if name.startswith(what))
    (copied / file).write_bytes(content)
    message = refused(copied)
    assert message.startswith(f"{copied / file}: ")
    assert "JSON: it is " + what in message


def test_an_index_that_is_something_else(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors.index.json"
    path.write_bytes(POINTER)
    assert refused(saved, student=path).startswith(f"{path}: a Git LFS pointer")


@pytest.mark.parametrize("name", ["graph.onnx", "flax_model.msgpack", "__0_0.distcp"])
def test_names_tell_where_bytes_do_not(saved: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(saved_by_torch({"a": torch.zeros(1)}))
    assert refused(saved, student=tmp_path / name).startswith(f"{tmp_path / name}: a")


def test_a_config_given_as_student(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    assert refused(saved, student=path) == f"{path}: a JSON file and no weights; give the weights beside it"


def test_what_is_read_is_known(tmp_path: Path) -> None:
    forms = {
        SAFETENSORS: save({"a": torch.zeros(3)}),
        TORCH: saved_by_torch({"a": torch.zeros(3)}),
        PICKLE: saved_by_torch({"a": torch.zeros(3)}, new=False),
        JSON: b' {"a": 1}',
    }
    for form, content in forms.items():
        (tmp_path / "file").write_bytes(content)
        assert form_of(tmp_path / "file") == form
    (tmp_path / "file").write_bytes(save({}))
    assert form_of(tmp_path / "file") == SAFETENSORS


@pytest.mark.parametrize("new", [True, False])
def test_the_content_counts_and_not_the_name(saved: Path, tmp_path: Path, new: bool) -> None:
    """A file of torch that is called safetensors, and the other way."""
    weights = dict(networks.dit(seed=1).state_dict())
    (tmp_path / "a.safetensors").write_bytes(saved_by_torch(weights, new=new))
    (tmp_path / "a.pt").write_bytes(save(weights))
    for name in ("a.safetensors", "a.pt"):
        found = load_bundle(saved, student=tmp_path / name).transformer().state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in weights.items())


@settings(max_examples=200, derandomize=True)
@given(st.binary(max_size=600))
def test_any_bytes_have_a_form(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(content)
    form = form_of(path)
    assert form in (SAFETENSORS, TORCH, PICKLE, JSON) or form.hint
