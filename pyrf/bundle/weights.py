"""Weights on disk: safetensors (single or sharded) and files of torch, read safely and checked."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pyrf.bundle.sniff import FETCH, JSON, PICKLE, SAFETENSORS, TORCH, Form, form_of, strange
from pyrf.bundle.values import holds_weights, problem_of


class Placement(NamedTuple):
    """Where loaded weights go.

    Attributes:
        device: "meta" loads a network without its values, for what follows from its shapes.
        for_gpu: whether it is laid out for a GPU; None: where it goes to one.
    """

    dtype: torch.dtype = torch.float32
    device: str | torch.device = "cpu"
    for_gpu: bool | None = None

    @property
    def is_for_gpu(self) -> bool:
        """Whether the network is laid out for a GPU."""
        return torch.device(self.device).type == "cuda" if self.for_gpu is None else self.for_gpu


class CheckpointError(ValueError):
    """A weights file that is missing, damaged, or not the network's. The message names the file."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a flat state dict: safetensors, a sharded `.safetensors.index.json`, or a file of torch.

    Its content says which of them a file is, not its name. Tensors are mapped, not copied: no memory is spent
    before `load_weights` copies them out.

    Raises:
        CheckpointError: when the file is missing, damaged, or holds anything but named tensors.
    """
    path = Path(path)
    content = read_content(path)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: expected named tensors, found {name!r}: {type(value).__name__}")
    if not content:
        raise CheckpointError(f"{path}: holds no tensors")
    return {name: plain_tensor(value, name, path) for name, value in content.items()}


def read_content(path: Path) -> dict[Any, Any]:
    """Read what a file of weights holds: names and tensors; a file of torch may have dicts and numbers, too.

    Raises:
        CheckpointError: when it is missing, damaged or another kind of file; the message says which.
    """
    if path.name.endswith(".index.json"):
        return dict(_read_shards(path))
    return _read_file(path)


def plain_tensor(tensor: Tensor, name: str, path: Path) -> Tensor:
    """The tensor itself of what FSDP2 saved, which is a DTensor of one process.

    Raises:
        CheckpointError: when only a part of it is in the file.
    """
    if type(tensor).__name__ != "DTensor":
        return tensor
    local: Tensor = tensor._local_tensor  # type: ignore[attr-defined]
    if local.shape != tensor.shape:
        raise CheckpointError(
            f"{path}: {name} is one process's part of a tensor, {list(local.shape)} of {list(tensor.shape)}; "
            "save whole tensors: get_model_state_dict with full_state_dict, or full_tensor() of each"
        )
    return local


def find_weights(directory: Path, *stems: str) -> Path:
    """The file of weights in `directory`: the shards' index or single file of the first stem that has one.

    Raises:
        CheckpointError: when there is none; the message says what lies there in its place.
    """
    for stem in stems:
        for kind in (".safetensors.index.json", ".safetensors", ".bin.index.json", ".bin"):
            if (directory / f"{stem}{kind}").is_file():
                return directory / f"{stem}{kind}"
    there = sorted(
        p.name for p in directory.glob("*") if p.is_file() and p.suffix not in (".json", ".md", "")
    )
    raise CheckpointError(
        f"{directory / stems[0]}.safetensors: missing, and there is no index of shards beside it"
        + (f"; there is {', '.join(there[:3])}" if there else "")
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
        if weights[name].is_meta:
            continue
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


def _read_file(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    try:
        form = form_of(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if form == SAFETENSORS:
        return _read_safetensors(path)
    if form in (TORCH, PICKLE):
        return _read_pickle(path, form)
    if form == JSON:
        raise CheckpointError(f"{path}: a JSON file and no weights; give the weights beside it")
    raise CheckpointError(f"{path}: {form}")


def _read_safetensors(path: Path) -> dict[Any, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file ({_first_line(error)}); {FETCH}") from error


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
    if form := strange(index, JSON):
        raise CheckpointError(f"{index}: {form}")
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
    shards = sorted(set(shard_of.values()))
    if lost := [shard for shard in shards if not (index.parent / shard).is_file()]:
        raise CheckpointError(
            f"{index.parent / lost[0]}: no such file{_and_more(lost)}, "
            f"of the {len(shards)} that {index.name} names"
        )
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in read_tensors(index.parent / shard).items():
            if name in tensors:
                raise CheckpointError(f"{index.parent / shard}: {name} is in another shard, too")
            tensors[name] = tensor
    if lost := [name for name in shard_of if name not in tensors]:
        raise CheckpointError(f"{index.parent / shard_of[lost[0]]}: {lost[0]} is missing{_and_more(lost)}")
    return tensors


def _read_pickle(path: Path, form: Form) -> dict[Any, Any]:
    try:
        content = _load(path, mmap=form == TORCH)
    except Exception as error:  # the unpickler raises almost anything on damaged bytes
        why = f"damaged or truncated ({type(error).__name__}); {FETCH}"
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error).lower():
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"objects of {found[1]}" if found else "objects other than tensors"
            why = (
                f"holds {what}, which need code to load and are refused for safety; "
                "where it was made, save its tensors: torch.save(model.state_dict(), ...)"
            )
        raise CheckpointError(f"{path}: {why}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, found {type(content).__name__}")
    return content


def _load(path: Path, *, mmap: bool) -> Any:
    """torch.load, safely; the class of DTensors is known only once its package is imported."""
    if path.suffix == ".safetensors":  # torch goes by the name, unless the file is open
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if "torch.distributed.tensor" not in str(error):
            raise
        import_module("torch.distributed.tensor")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
