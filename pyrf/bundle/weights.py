"""Weights on disk: safetensors (single or sharded), pickles and student files, read safely and checked."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pyrf.bundle.values import holds_weights, problem_of

WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""What FSDP, activation checkpointing and torch.compile add inside parameter names."""

STUDENT_ENTRIES = ("generator_ema", "generator", "model")
"""Where a training checkpoint keeps the student, best first: the averaged weights sample best."""


class Placement(NamedTuple):
    """Where loaded weights go."""

    dtype: torch.dtype = torch.float32
    device: str | torch.device = "cpu"


class CheckpointError(ValueError):
    """A weights file that is missing, damaged, or not the network's. The message names the file."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read `.safetensors`, a sharded `.safetensors.index.json`, or a torch pickle of a flat state dict.

    Tensors are mapped, not copied: no memory is spent before `load_weights` copies them out.

    Raises:
        CheckpointError: when the file is missing, damaged, or holds anything but named tensors.
    """
    path = Path(path)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _as_tensors(_read_pickle(path), path)


def read_student(path: str | Path) -> dict[str, Tensor]:
    """Read a student in any of the published forms, with its names stripped to those of the network.

    A student file is a state dict, or a training checkpoint that holds one under `generator_ema`,
    `generator` or `model`; names may start with `model.` and carry wrappers of FSDP and the like.

    Raises:
        CheckpointError: as `read_tensors`.
    """
    path = Path(path)
    if path.suffix == ".safetensors" or path.name.endswith(".index.json"):
        tensors = read_tensors(path)
    else:
        content = _read_pickle(path)
        entry = next((name for name in STUDENT_ENTRIES if isinstance(content.get(name), Mapping)), None)
        tensors = _as_tensors(content if entry is None else content[entry], path)
    return _strip_names(tensors, path)


def find_weights(directory: Path, stem: str) -> Path:
    """The file that `read_tensors` takes for `stem` in `directory`: the shards' index, or the single file.

    Raises:
        CheckpointError: when there is neither.
    """
    for name in (f"{stem}.safetensors.index.json", f"{stem}.safetensors"):
        if (directory / name).is_file():
            return directory / name
    raise CheckpointError(
        f"{directory / stem}.safetensors: missing, and there is no index of shards beside it"
    )


class _WithoutValues(TorchFunctionMode):
    """Leaves out the filling of parameters."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (
            function in (Tensor.normal_, Tensor.uniform_)
            or getattr(function, "__module__", "") == "torch.nn.init"
        ):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@contextmanager
def unfilled() -> Iterator[None]:
    """Build modules on the meta device, for `load_weights` to fill, without setting initial values.

    Random values on the meta device import torch's compiler, which takes seconds.
    """
    with torch.device("meta"), _WithoutValues():
        yield


def load_weights(
    module: nn.Module,
    tensors: dict[str, Tensor],
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> None:
    """Put `tensors` into `module` (built in `unfilled`), copied one by one to `dtype` and `device`.

    `tensors` is emptied on the way, so that weights are never held twice.

    Raises:
        CheckpointError: naming `source`, the first wrong key, expected and found shape, and how many more;
            or the first tensor with values that no network can have.
    """
    check_names_and_shapes({name: t.shape for name, t in module.state_dict().items()}, tensors, source)
    weights = {}
    for name in list(tensors):
        found = tensors.pop(name)
        weights[name] = found.to(device=device, dtype=dtype, copy=True)
        if problem := problem_of(found, weights[name]):
            raise CheckpointError(f"{source}: {name} {list(found.shape)} {problem}")
    module.load_state_dict(weights, assign=True)
    left = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if left:
        raise RuntimeError(f"{type(module).__name__} has buffers that no weights file fills: {left}")


def check_names_and_shapes(
    expected: Mapping[str, torch.Size], found: Mapping[str, Tensor], source: str | Path
) -> None:
    """Compare a network's parameters with a file's.

    Raises:
        CheckpointError: on a missing or unexpected name, another shape, or a type that is not floating point.
    """
    problems = []
    if missing := [name for name in expected if name not in found]:
        name = missing[0]
        problems.append(f"{name} {list(expected[name])} is missing{_and_more(missing)}")
    if unexpected := [name for name in found if name not in expected]:
        name = unexpected[0]
        problems.append(f"{name} {list(found[name].shape)} is not part of the network{_and_more(unexpected)}")
    shared = [name for name in expected if name in found]
    if wrong := [name for name in shared if found[name].shape != expected[name]]:
        want, have = list(expected[wrong[0]]), list(found[wrong[0]].shape)
        problems.append(f"{wrong[0]}: expected shape {want}, found {have}{_and_more(wrong)}")
    if typed := [name for name in shared if not holds_weights(found[name])]:
        name = typed[0]
        problems.append(f"{name}: expected floating point, found {found[name].dtype}{_and_more(typed)}")
    if problems:
        raise CheckpointError(f"{source}: {'; '.join(problems)}")


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged or truncated safetensors file ({_first_line(error)}); fetch it again"
        ) from error


def weight_files(path: Path) -> list[Path]:
    """The files that `read_tensors` reads for `path`: itself, and where it is an index of shards these too.

    Raises:
        CheckpointError: when an index is missing or damaged.
    """
    if not path.name.endswith(".index.json"):
        return [path]
    return [path, *(path.parent / shard for shard in sorted(set(_read_index(path).values())))]


def _read_index(index: Path) -> dict[str, str]:
    """The shard of each tensor."""
    if not index.is_file():
        raise CheckpointError(f"{index}: no such file")
    try:
        shard_of: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(shard_of.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of shards with a weight_map") from error
    for shard in shards:
        # A shard lies beside its index: a name with a folder in it could point anywhere.
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise CheckpointError(f"{index}: {shard!r} is not the name of a file beside it")
    return shard_of


def _read_shards(index: Path) -> dict[str, Tensor]:
    shard_of = _read_index(index)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shard_of.values())):
        tensors |= _read_safetensors(index.parent / shard)
    if lost := [name for name in shard_of if name not in tensors]:
        raise CheckpointError(f"{index.parent / shard_of[lost[0]]}: {lost[0]} is missing{_and_more(lost)}")
    return tensors


def _read_pickle(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # the unpickler raises almost anything on damaged bytes
        why = "damaged or truncated"
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error).lower():
            why = "damaged, or holds objects other than tensors, which are not loaded for safety"
        raise CheckpointError(f"{path}: {why} ({type(error).__name__}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, found {type(content).__name__}")
    return content


def _as_tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: expected named tensors, found {name!r}: {type(value).__name__}")
    if not content:
        raise CheckpointError(f"{path}: holds no tensors")
    return dict(content)


def _strip_names(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    stripped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = name
        for wrapper in WRAPPERS:
            plain = plain.replace(wrapper, "")
        plain = plain.removeprefix("model.")
        if plain in stripped:
            raise CheckpointError(f"{path}: {name} and another key both mean {plain}")
        stripped[plain] = tensor
    return stripped
