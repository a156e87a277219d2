"""Statistics of a transformer's activations, taken while it rolls out: quantisation needs them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from pyrf.models.dit.model import WanModel

_CROSS_KV = re.compile(r"cross_attn\.[kv]$")


def largest_inputs(model: WanModel, roll_out: Callable[[], object]) -> dict[str, float]:
    """The largest magnitude that enters each linear of the blocks while a function runs the model.

    The keys and values of cross-attention are left out: they are made once per prompt, not in every call.

    Args:
        model: the student.
        roll_out: runs it on what it will meet in use.

    Returns:
        By the linear's name, such as "blocks.0.ffn.2". What did not run is missing.
    """
    largest: dict[str, float] = {}

    def watch(name: str, x: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(x.abs().max()))

    with _watched(model, watch):
        roll_out()
    return largest


@contextmanager
def _watched(model: WanModel, watch: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Inside, what enters a linear of the blocks is shown first, with the linear's name."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: watch(name, inputs[0])

    hooks = [
        module.register_forward_pre_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("blocks.") and not _CROSS_KV.search(name)
    ]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
