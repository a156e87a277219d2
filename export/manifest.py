"""What an exported folder holds: `manifest.json` beside the graphs, which names every input and output.

A folder is for one geometry, one dtype, one precision and one set of weights. Batch is 1 everywhere.

    text           ids, keep                                   -> prompt_embeds
    prompt         prompt_embeds                               -> cross_keys.i, cross_values.i
    time           sinusoid                                    -> modulation
    denoise        latents, modulation, rope, position, length,
                   cross_keys.i, cross_values.i, keys.i, values.i
                                                               -> flow, keys_out.i, values_out.i
    clean          the same, less what only flow needs         -> keys_out.i, values_out.i
    decoder_first  latents                                     -> frames, memory_out.i
    decoder_next   latents, memory.i                           -> frames, memory_out.i

With a cache in e4m3 denoise has only flow, and the outputs of clean are the chunk's entries.
`i` counts layers, or for the decoder its memories. docs/export.md has the shape and meaning of each tensor.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.export.errors import ExportError
from pyrf.printing import counted

MANIFEST = "manifest.json"
FORMAT = 1
STUDENT = ("prompt", "time", "denoise", "clean")
DECODER = ("decoder_first", "decoder_next")
GRAPHS = ("text", *STUDENT, *DECODER)
"""Every graph that a folder may hold, by name."""
FP8_ATTENTION = "fp8-attention"
"""The precision that graphs may have: cache and products of self-attention in e4m3."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph.

    Attributes:
        dtype: "float32", "float16", "bfloat16", "float8_e4m3fn", "int64", "bool" or "uint8".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A graph of an exported folder.

    Attributes:
        file: its .onnx file. Weights are in files of their own beside it (ONNX external data).
        inputs, outputs: in the file's order.
        aliases: output name -> input name, where both must be bound to one address.
    """

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        dtype: of weights, activations and cache.
        precision: `FP8_ATTENTION`, and then the cache is in e4m3; None: all is in the dtype.
        fp8: whether the matrix products of the blocks are float8 between quantise and dequantise nodes.
        model, stream: the student, and how it streams.
        height, width: of the latents.
        weights: `bundle_fingerprint` of what was exported; empty for a student that belongs to no bundle.
        versions: of the packages that exported it.
        graphs: by the names of `GRAPHS`; the text encoder or the decoder may have been left out.
        files: size in bytes and SHA-256 of every file.
    """

    dtype: str
    fp8: bool
    model: ModelConfig
    stream: StreamConfig
    height: int
    width: int
    weights: str
    versions: dict[str, str]
    graphs: dict[str, GraphSpec]
    files: dict[str, tuple[int, str]]
    precision: str | None = None
    format: int = FORMAT

    @property
    def size(self) -> LatentSize:
        """Of the latents."""
        return LatentSize(self.height, self.width)

    @property
    def tokens(self) -> int:
        """Tokens of a chunk."""
        return self.stream.chunk_frames * self.size.tokens

    @property
    def cache_dtype(self) -> str:
        """Of keys and values."""
        return self.dtype if self.precision is None else "float8_e4m3fn"

    @property
    def lengths(self) -> tuple[int, ...]:
        """All values that the input `length` takes."""
        return tuple(self.tokens * chunks for chunks in range(1, self.stream.slots + 1))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: when the text is something else.
        """
        values: dict[str, Any] = json.loads(text)
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, this pyrf reads {FORMAT}")
        if values.get("precision") not in (None, FP8_ATTENTION):
            raise ValueError(f"precision {values['precision']}, this pyrf reads {FP8_ATTENTION} or none")
        steps = {
            name: tuple(value) for name, value in values["stream"].items() if isinstance(value, list)
        }  # JSON has no tuples
        return cls(
            **{
                **values,
                "model": ModelConfig(**values["model"]),
                "stream": StreamConfig(**{**values["stream"], **steps}),
                "graphs": {name: _graph_spec(graph) for name, graph in values["graphs"].items()},
                "files": {name: (size, digest) for name, (size, digest) in values["files"].items()},
            }
        )


def _graph_spec(values: dict[str, Any]) -> GraphSpec:
    def tensors(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(row["name"], row["dtype"], tuple(row["shape"])) for row in rows)

    return GraphSpec(values["file"], tensors(values["inputs"]), tensors(values["outputs"]), values["aliases"])


def file_entry(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def load_manifest(folder: str | Path, *, check_content: bool = True) -> Manifest:
    """Read an exported folder's manifest and check that its files are all there and whole.

    Args:
        folder: written by `export_onnx`.
        check_content: read every file, not only its size.

    Raises:
        ExportError: when something is missing, damaged or of another format.
    """
    folder = Path(folder)
    try:
        manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{folder / MANIFEST}: no such file; export the bundle with pyrf export") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ExportError(f"{folder / MANIFEST}: damaged ({error}); export the bundle again") from error
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {counted(found, 'byte')} instead of {size}"
            raise ExportError(f"{path} {state}; export the bundle again")
        if check_content and file_entry(path) != (size, digest):
            raise ExportError(f"{path} is damaged (its SHA-256 has changed); export the bundle again")
    return manifest
