"""Where in a file a part's weights are: in which entry of a dict, and under which prefix of their names."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pyrf.bundle.contents import ANCHORS, Part, contents_of
from pyrf.bundle.fp8 import split_scales, unpack
from pyrf.bundle.weights import CheckpointError, plain_tensor, read_content

logger = logging.getLogger(__name__)

WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""What FSDP, activation checkpointing and torch.compile add inside parameter names."""

_DEPTH = 4
"""Of dicts in dicts, at most."""
_OTHER_ROLES = (
    r"(?:^|[._])(?:critic|fake_score|real_score|fake|real|teacher|discriminator|optimizers?)(?:$|[._])"
)
"""Networks that a training keeps beside its student, of the same shape."""


class _Found(NamedTuple):
    """A place that holds a part."""

    entry: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]

    @property
    def label(self) -> str:
        """As a message calls it: entries and prefix."""
        return ".".join((*self.entry, self.prefix.rstrip("."))).strip(".")


def peek_part(path: Path, part: Part) -> dict[str, Tensor]:
    """The tensors of a part under the names of its network, for their names and shapes: values may be scaled.

    Raises:
        CheckpointError: as `read_part`.
    """
    return split_scales(_find(path, part), path)[0]


def read_part(path: str | Path, part: Part) -> dict[str, Tensor]:
    """Read a part in any of the published forms, its names stripped to those of its network.

    A file is a state dict, or holds one in an entry, such as `generator_ema`, `generator`, `model` or
    `state_dict`. Names may have a prefix, such as `model.` or `model.diffusion_model.`, and carry wrappers
    of FSDP and the like. Where several fit, the average of the weights (`ema`) is taken and the log says so.
    Scaled float8 weights come as float32.

    Args:
        path: safetensors, an index of shards, or a file of torch, whatever its name is.
        part: what is expected in it.

    Raises:
        CheckpointError: when the file is missing, damaged or something else, or several parts in it fit.
    """
    path = Path(path)
    return unpack(*split_scales(_find(path, part, tell=True), path), path)


def renamed(tensors: dict[str, Tensor], rename: Callable[[str], str], path: Path) -> dict[str, Tensor]:
    """Tensors under other names.

    Raises:
        CheckpointError: when two get the same name.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = rename(name)
        if new in result:
            raise CheckpointError(f"{path}: {name} and another key both mean {new}")
        result[new] = tensor
    return result


def _find(path: Path, part: Part, *, tell: bool = False) -> dict[str, Tensor]:
    shard = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(\.\w+)", path.name)
    if shard and int(shard[2]) > 1:
        raise CheckpointError(
            f"{path}: one shard of {int(shard[2])}; give the index beside it, {shard[1]}{shard[3]}.index.json"
        )
    states = dict(_states(read_content(path), (), path))
    if not any(states.values()):
        raise CheckpointError(f"{path}: holds no tensors")
    places = [place for entry, tensors in states.items() for place in _places(entry, tensors, part, path)]
    if not places:
        return _unknown(states, part, path)
    chosen = _choose(places, path)
    if tell and len(places) > 1:
        others = ", ".join(repr(place.label) for place in places if place is not chosen)
        logger.warning("%s: %r is used; it holds %s, too", path, chosen.label, others)
    contents = contents_of(chosen.tensors)
    if contents is not None and contents.part != part:
        raise CheckpointError(f"{path}: {contents.name}, where the {part} is expected; {contents.hint}")
    return chosen.tensors


def _states(content: Mapping[Any, Any], entry: tuple[str, ...], path: Path) -> Iterator[Any]:
    """Every dict in dicts that has tensors: its entry, and the tensors."""
    tensors = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            if not isinstance(name, str):
                raise CheckpointError(
                    f"{path}: expected named tensors, found {name!r}: {type(value).__name__}"
                )
            tensors[name] = plain_tensor(value, name, path)
        elif isinstance(value, Mapping) and isinstance(name, str) and len(entry) < _DEPTH:
            yield from _states(value, (*entry, name), path)
    yield entry, tensors


def _places(entry: tuple[str, ...], tensors: dict[str, Tensor], part: Part, path: Path) -> list[_Found]:
    """What of a state dict is the part, once for each prefix under which it is there."""
    unwrapped = renamed(tensors, _without_wrappers, path)
    anchor = re.compile(rf"(|.*?\.)(?:{ANCHORS[part]})")
    prefixes = {match[1] for match in map(anchor.fullmatch, unwrapped) if match}
    # A name in the midst of longer ones of the same place is no prefix of its own.
    tops = [
        p for p in prefixes if not any(p != other and p.startswith(other) and other for other in prefixes)
    ]
    found = []
    for prefix in sorted(tops):
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in unwrapped.items()
            if name.startswith(prefix) and not _counts(tensor)
        }
        found.append(_Found(entry, prefix, own))
    return found


def _counts(tensor: Tensor) -> bool:
    """Whether it is a number that trainings keep beside weights, such as of steps."""
    return tensor.ndim == 0 and not tensor.is_floating_point()


def _without_wrappers(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _choose(places: list[_Found], path: Path) -> _Found:
    """The one place that holds the student, or its average.

    Raises:
        CheckpointError: when it is not plain which that is.
    """
    own = [place for place in places if not re.search(_OTHER_ROLES, place.label)]
    if not own:
        raise CheckpointError(
            f"{path}: holds {places[0].label!r} and no generator; give the file of the student itself"
        )
    averaged = [place for place in own if re.search(r"(?:^|[._])ema(?:$|[._])", place.label)]
    fit = averaged or own
    if len(fit) > 1:
        labels = " and ".join(repr(place.label or "bare names") for place in fit)
        raise CheckpointError(
            f"{path}: {labels} both fit; save the one you mean by itself: "
            "torch.save(torch.load(FILE, weights_only=True)[ENTRY], 'student.pt')"
        )
    return fit[0]


def _unknown(states: dict[tuple[str, ...], dict[str, Tensor]], part: Part, path: Path) -> dict[str, Tensor]:
    """Names in which nothing of the part is seen: refused by what they are, or left to the check of names."""
    for tensors in states.values():
        contents = contents_of(tensors)
        if contents is not None and contents.part != part:
            hint = contents.hint or f"give a file of the {part}"
            raise CheckpointError(f"{path}: {contents.name}, where the {part} is expected; {hint}")
    largest = max(states.values(), key=len)
    return renamed(largest, lambda name: _without_wrappers(name).removeprefix("model."), path)
