"""What a file is, by its first bytes, whatever its name says; nothing of its weights is read."""

from __future__ import annotations

import codecs
import json
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

FETCH = "fetch it again"

LFS = b"version https://git-lfs.github.com/spec/"
_START = 4096
_MAX_HEADER = 100 << 20
"""Bytes of a safetensors header, as that format limits it."""
_DTYPES = {
    *("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"),
    *("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"),
}
"""Numbers of safetensors that torch has, too."""

_CONVERT = "give the .safetensors or .pt file of the same model"
_UNPACK = "unpack it and give the file inside"
_MAGIC = (
    (b"GGUF", "a GGUF file, quantised for llama.cpp or ComfyUI", _CONVERT),
    (b"GGML", "a GGML file, quantised for llama.cpp", _CONVERT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"\x08\x01\x12", "a TensorFlow model", _CONVERT),
    (b"ftrt", "a TensorRT engine", "give the model it was built from, or name its folder as exported"),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x89PNG", "a picture", "give weights"),
    (b"\xff\xd8\xff", "a picture", "give weights"),
    (b"GIF8", "a picture", "give weights"),
    (b"%PDF", "a PDF document", "give weights"),
    (b"\x7fELF", "a program", "give weights"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")


class Form(NamedTuple):
    """What a file is.

    Attributes:
        name: "safetensors", "torch", "pickle" and "JSON" are read; all else is a phrase for a message.
        hint: what to do about it; empty where it is read.
    """

    name: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.name}; {self.hint}"


SAFETENSORS = Form("safetensors")
TORCH = Form("torch")
PICKLE = Form("pickle")
JSON = Form("JSON")


def form_of(path: Path) -> Form:
    """What `path`, an existing file, is.

    Raises:
        OSError: when it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_START)
        if not start:
            return Form("empty: it has no bytes", FETCH)
        if _begins_safetensors(start):
            return _safetensors(start[:8], path, size)
    return _by_suffix(path) or _by_start(start.ljust(4, b"\0"), path) or _text(start) or _unknown(start)


def strange(path: Path, *expected: Form) -> Form | None:
    """What `path` is, where it is none of `expected`; nothing where it is, or is not there."""
    try:
        found = form_of(path)
    except OSError:
        return None  # whoever reads it says so
    return None if found in expected else found


def _by_suffix(path: Path) -> Form | None:
    """Formats whose first bytes are those of others."""
    if path.suffix == ".distcp":
        folder = path.parent
        return Form(
            "a part of a distributed checkpoint of torch",
            f"join it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} student.pt",
        )
    if path.suffix == ".onnx":
        return Form("an ONNX graph", _CONVERT)
    if path.suffix == ".msgpack":
        return Form("a msgpack file, as flax writes", _CONVERT)
    return None


def _by_start(start: bytes, path: Path) -> Form | None:
    if start.startswith(LFS):
        return Form("a Git LFS pointer and not the file itself", "run `git lfs pull` where it was cloned")
    if start.startswith(b"PK"):
        return _zip(path)
    if start[257:262] == b"ustar":
        return Form("a tar archive", _UNPACK)
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return PICKLE
    for magic, name, hint in _MAGIC:
        if start.startswith(magic):
            return Form(name, hint)
    if start[4:8] == b"ftyp" or start[:4] in (b"RIFF", b"\x1aE\xdf\xa3"):
        return Form("a picture or video", "give weights")
    if start[0] == 0x08 and start[1:2] <= b"\x20" and start[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return Form("an ONNX graph", _CONVERT)
    # A map whose first key is a text.
    if (0x81 <= start[0] <= 0x8F and 0xA1 <= start[1] <= 0xDA) or start[0] in (0xDE, 0xDF):
        return Form("a msgpack file, as flax writes", _CONVERT)
    return None


def _begins_safetensors(start: bytes) -> bool:
    return len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= _MAX_HEADER


def _safetensors(length: bytes, path: Path, size: int) -> Form:
    """A safetensors file, when as much of it is there as its header says."""
    (header_size,) = struct.unpack("<Q", length)
    with path.open("rb") as file:
        file.seek(8)
        text = file.read(header_size)
    try:
        tensors = {name: value for name, value in json.loads(text).items() if name != "__metadata__"}
        end = 8 + header_size + max((value["data_offsets"][1] for value in tensors.values()), default=0)
        types = {value["dtype"] for value in tensors.values()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        if len(text) == header_size:
            return Form("a damaged safetensors file: its header is no JSON of tensors", FETCH)
        return Form("a truncated safetensors file: it ends within its header", FETCH)
    if size != end:
        name = "truncated" if size < end else "damaged"
        return Form(f"a {name} safetensors file: it has {size} bytes and needs {end}", FETCH)
    if unknown := sorted(map(str, types - _DTYPES)):
        return Form(f"quantised to {', '.join(unknown)}, numbers that torch has not", _CONVERT)
    return SAFETENSORS


def _zip(path: Path) -> Form:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return Form("a truncated torch file or zip archive: its end is missing", FETCH)
    parts = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in parts:
        return Form("a TorchScript program", "give its state dict: torch.save(module.state_dict(), ...)")
    if "data.pkl" in parts:
        return TORCH
    if any(name.endswith(".npy") for name in names):
        return Form("an archive of NumPy arrays", _CONVERT)
    return Form("a zip archive without weights of torch", _UNPACK)


def _text(start: bytes) -> Form | None:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # a letter may be cut at the end
    except UnicodeDecodeError:
        return None
    if any(ord(letter) < 32 and letter not in "\t\n\r\f" for letter in text):
        return None
    low = text.lstrip("\ufeff \t\r\n").lower().encode()
    if low.startswith(_PAGES) or (low.startswith(b"<?xml") and b"<html" in low):
        return Form("a web page, such as one of a login or an error", f"{FETCH}, by the file's own address")
    if low.startswith((b"{", b"[")):
        return JSON
    line = " ".join(text.split())[:60]
    return Form(f"a text that begins {line!r}", FETCH) if line else Form("a file of white space", FETCH)


def _unknown(start: bytes) -> Form:
    if not any(start):
        return Form("a file of zeros: its download did not end", FETCH)
    return Form("no weights: neither safetensors nor a file of torch", FETCH)
