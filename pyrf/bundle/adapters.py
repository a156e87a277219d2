"""Adapters (LoRA) on disk: every public form, read safely and checked against the network they change."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from pyrf.bundle.adapter_file import AdapterFile, AdapterSpec, check_strength
from pyrf.bundle.adapter_names import AdapterNameError, ModuleNames, Slot
from pyrf.bundle.hub import find_student
from pyrf.bundle.json_file import BundleError, JsonFile
from pyrf.bundle.sniff import SAFETENSORS, form_of
from pyrf.bundle.student import student_file
from pyrf.bundle.values import holds_weights, problem_of
from pyrf.bundle.weights import CheckpointError, plain_tensor, read_content, unfilled
from pyrf.config import ModelConfig
from pyrf.models.dit.adapter import Adapter, Added, Change, LowRank
from pyrf.models.dit.model import WanModel

MAX_NAME = 64
"""Characters of an adapter's name."""
_DEPTH = 4
"""Of dicts in dicts, at most."""
_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps peft's configuration in a safetensors file, as JSON."""
_WHOLE: tuple[Slot, ...] = ("weight", "bias", "modulation")
_OF_LOW_RANK: tuple[Slot, ...] = ("alpha", "up bias")
_OTHER_ROLES = r"critic|fake|real|teacher|discriminator|optimizer"


def read_adapters(specs: Sequence[AdapterSpec], config: ModelConfig) -> tuple[Adapter, ...]:
    """Read adapters of a network.

    Args:
        config: sizes of the network that they change.

    Raises:
        ValueError: when a strength or a name will not do, or two have one name; and as `read_adapter`.
    """
    if isinstance(specs, str | Path):
        raise ValueError(f"adapters must be a list, got {str(specs)!r}; give [{str(specs)!r}]")
    adapters: dict[str, Adapter] = {}
    for spec in specs:
        file, strength, name = AdapterFile(spec) if isinstance(spec, str | Path) else AdapterFile(*spec)
        found = find_student(file, what="adapter").absolute()
        name = (found.name if found.is_dir() else found.stem) if name is None else name
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise ValueError(f"an adapter's name has 1..{MAX_NAME} characters, got {name!r}; give another")
        if name in adapters:
            raise ValueError(
                f"two adapters are named {name!r}: {adapters[name].path} and {found}; give one another name, "
                "as ('FILE', STRENGTH, 'NAME'), or NAME=FILE on the command line"
            )
        adapters[name] = read_adapter(found, name, check_strength(name, strength), config)
    return tuple(adapters.values())


def read_adapter(path: Path, name: str, strength: float, config: ModelConfig) -> Adapter:
    """Read an adapter in any of the public forms.

    The change of a weight is (alpha / rank) B A. Without an alpha in the file, and without a configuration of
    peft in it or beside it, alpha is the rank. Full changes (`.diff`, `.diff_b`, `.diff_m`) are added as they
    are.

    Args:
        path: safetensors or a file of torch; or a folder that holds one.
        config: sizes of the network.

    Raises:
        CheckpointError: naming the first key that is wrong, what was expected, and what to do.
    """
    file = student_file(path)
    with unfilled():
        shapes = {key: tensor.shape for key, tensor in WanModel(config).state_dict().items()}
    names = ModuleNames(shapes)
    parts: dict[str, dict[Slot, tuple[str, Tensor]]] = {}
    prefixes: dict[str, str] = {}
    for key, tensor in _tensors(file).items():
        try:
            module, slot, prefix = names.meaning(key)
        except AdapterNameError as error:
            raise CheckpointError(f"{file}: {error}") from None
        prefixes.setdefault(prefix, key)
        own = parts.setdefault(module, {})
        if slot in own:
            raise CheckpointError(
                f"{file}: {own[slot][0]} and {key} both are the {slot} of {module}; a file holds one adapter"
            )
        own[slot] = key, tensor
    if len(prefixes) > 1:
        first, second, *_ = prefixes.values()
        raise CheckpointError(
            f"{file}: {first} and {second} have two prefixes, so it holds adapters of two networks; "
            "save the one you mean by itself"
        )
    peft = _PeftConfig.beside(file)
    changes: dict[str, list[Change]] = {}
    for module, own in parts.items():
        for parameter, change in _ModuleParts(module, own, shapes, file).changes(peft):
            changes.setdefault(parameter, []).append(change)
    if not changes:
        raise CheckpointError(f"{file}: holds no adapter")
    return Adapter(name, strength, path, {key: tuple(found) for key, found in changes.items()})


class _ModuleParts:
    """What a file holds for one module.

    Args:
        module: its name in the network.
        parts: keys and tensors.
        shapes: of the network's parameters.
        file: for messages.
    """

    def __init__(
        self,
        module: str,
        parts: Mapping[Slot, tuple[str, Tensor]],
        shapes: Mapping[str, torch.Size],
        file: Path,
    ) -> None:
        self.module, self._parts, self._shapes, self._file = module, parts, shapes, file

    def changes(self, peft: _PeftConfig) -> Iterator[tuple[str, Change]]:
        """What the module's parts add to its parameters."""
        if "down" in self._parts or "up" in self._parts:
            yield from self._low_rank(peft)
        else:
            for slot in _OF_LOW_RANK:
                if slot in self._parts:
                    raise self._refusal(slot, f"the low-rank parts of {self.module} are missing")
        for slot in _WHOLE:
            if slot in self._parts:
                parameter = self._parameter(slot, slot)
                yield parameter, Added(self._checked(slot, self._shapes[parameter]))

    def _low_rank(self, peft: _PeftConfig) -> Iterator[tuple[str, Change]]:
        if "up" not in self._parts:
            raise self._refusal("down", "its other factor, lora_B or lora_up, is missing")
        if "down" not in self._parts:
            raise self._refusal("up", "its other factor, lora_A or lora_down, is missing")
        weight = self._parameter("weight", "down")
        outer, *inner = self._shapes[weight]
        down_key, down = self._parts["down"]
        up, most = self._parts["up"][1], max(outer, math.prod(inner))
        rank = down.shape[0] if down.ndim > 1 else 0
        if not 0 < rank <= most:
            raise self._refusal("down", f"its rank must lie in 1..{most}, got {rank}")
        if up.ndim > 1 and up.shape[1] != rank:
            raise self._refusal("up", f"its rank is {up.shape[1]}, but that of {down_key} is {rank}")
        down = self._checked("down", (rank, *inner)).flatten(1)
        up = self._checked("up", (outer, rank, *(1 for _ in inner[1:]))).flatten(1)
        factor = self._alpha() / rank if "alpha" in self._parts else peft.factor(down_key, rank)
        yield weight, LowRank(up, down, factor)
        if "up bias" in self._parts:
            bias = self._parameter("bias", "up bias")
            yield bias, Added(self._checked("up bias", self._shapes[bias]), factor)

    def _parameter(self, leaf: str, slot: Slot) -> str:
        name = f"{self.module}.{leaf}"
        if name not in self._shapes:
            raise self._refusal(slot, f"this model has no {name}; take an adapter that was made for it")
        return name

    def _alpha(self) -> float:
        tensor = self._parts["alpha"][1]
        if tensor.numel() != 1 or not math.isfinite(value := float(tensor)):
            raise self._refusal("alpha", "expected one finite number")
        return value

    def _checked(self, slot: Slot, expected: Sequence[int]) -> Tensor:
        tensor = self._parts[slot][1]
        if not holds_weights(tensor):
            raise self._refusal(slot, f"expected floating point, found {tensor.dtype}")
        if list(tensor.shape) != list(expected):
            raise self._refusal(slot, f"expected {list(expected)}; the adapter was made for another model")
        if problem := problem_of(tensor, tensor.float()):
            raise self._refusal(slot, problem)
        return tensor

    def _refusal(self, slot: Slot, problem: str) -> CheckpointError:
        key, tensor = self._parts[slot]
        return CheckpointError(f"{self._file}: {key} {list(tensor.shape)}: {problem}")


def _tensors(file: Path) -> dict[str, Tensor]:
    """The named tensors of an adapter; a file of torch may hold them in an entry, such as generator_lora."""
    states = {label: tensors for label, tensors in _states(read_content(file), "", file) if tensors}
    own = {label: tensors for label, tensors in states.items() if not re.search(_OTHER_ROLES, label)}
    if len(own) > 1:
        labels = " and ".join(repr(label or "bare names") for label in list(own)[:2])
        raise CheckpointError(f"{file}: {labels} both hold tensors; save the one you mean by itself")
    if not own:
        what = f"only {next(iter(states))!r}" if states else "no tensors"
        raise CheckpointError(f"{file}: holds {what}, and no adapter of a generator")
    return next(iter(own.values()))


def _states(content: Mapping[Any, Any], label: str, file: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict in dicts, under the names of its entries; numbers count where they are alphas."""
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, Tensor) and isinstance(name, str):
            tensors[name] = plain_tensor(value, name, file)
        elif isinstance(value, Mapping) and isinstance(name, str) and label.count(".") < _DEPTH - 1:
            yield from _states(value, f"{label}.{name}".strip("."), file)
        elif isinstance(value, int | float) and str(name).endswith(".alpha"):
            tensors[str(name)] = torch.tensor(float(value), dtype=torch.float32, device="cpu")
    yield label, tensors


class _PeftConfig(NamedTuple):
    """What peft says of an adapter outside its tensors; without any of it alpha is the rank."""

    alpha: float | None = None
    patterns: tuple[tuple[str, float], ...] = ()
    by_root: bool = False

    def factor(self, key: str, rank: int) -> float:
        """alpha / rank, or for rank-stabilised LoRA (arXiv 2312.03732) alpha / sqrt(rank).

        Args:
            key: of the first factor in the file. A pattern is the end of a module's name.
        """
        alpha = next((own for end, own in self.patterns if f".{end}.lora_" in f".{key}"), self.alpha)
        if alpha is None:
            alpha = float(rank)
        return alpha / (math.sqrt(rank) if self.by_root else rank)

    @classmethod
    def beside(cls, file: Path) -> _PeftConfig:
        """The configuration in the file, as diffusers writes it, or in the adapter_config.json beside it.

        Raises:
            ValueError: when it is damaged, or of another kind of adapter.
        """
        source, values = file, _metadata(file)
        if values is None:
            source = file.parent / "adapter_config.json"
            if not (file.stem.startswith("adapter_model") and source.is_file()):
                return cls()
            values = JsonFile(source).values
        if values.get("use_dora"):
            raise CheckpointError(f"{source}: an adapter of DoRA; plain LoRA is read: save it merged")
        if values.get("peft_type", "LORA") != "LORA":
            raise CheckpointError(f"{source}: an adapter of {values['peft_type']!r}; plain LoRA is read")
        patterns = values.get("alpha_pattern") or {}
        try:
            alpha = None if values.get("lora_alpha") is None else float(values["lora_alpha"])
            own = tuple((name.removeprefix("^"), float(value)) for name, value in patterns.items())
        except (TypeError, ValueError, AttributeError):
            raise BundleError(f"{source}: lora_alpha and alpha_pattern must be numbers") from None
        if not all(math.isfinite(value) for value in (alpha or 0.0, *(value for _, value in own))):
            raise BundleError(f"{source}: lora_alpha and alpha_pattern must be finite")
        return cls(alpha, own, bool(values.get("use_rslora")))


def _metadata(file: Path) -> dict[str, Any] | None:
    """Peft's configuration in a safetensors file."""
    if form_of(file) != SAFETENSORS:
        return None
    with safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get(_METADATA)
    if text is None:
        return None
    try:
        values = json.loads(text)
        return {str(name).removeprefix("transformer."): value for name, value in values.items()}
    except (ValueError, AttributeError):
        raise CheckpointError(f"{file}: its {_METADATA} is no JSON object") from None
