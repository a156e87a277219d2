"""Adapters merged into a network's weights in place, again and again.

A merged network is as fast as one without adapters, and its weights stay where they are in memory. So a
captured CUDA graph, or a stream under way, goes on with new values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pyrf.loop.inference import inference
from pyrf.models.dit.adapter import Adapter, Added, LowRank
from pyrf.models.dit.fp8_linear import Fp8Linear
from pyrf.models.dit.model import WanModel
from pyrf.models.dit.packed_linear import PackedLinear


class MergedWeights:
    """A network's weights, and what they are made of: the base's own values and adapters.

    Made before the network's linears are packed or rounded, as these give no weights back.

    Args:
        model: with the base's weights, on its device and in its dtype. It is changed by `merge` alone.
        adapters: with different names; each one's changes fit the model.
        keep_on: where the base's own values of the touched weights are kept; None: on the model's device.
            On the CPU they cost a GPU no memory, and each merge their transfer.

    Attributes:
        strengths: of the adapters by name, as they are merged now.
    """

    def __init__(
        self, model: WanModel, adapters: Sequence[Adapter], *, keep_on: str | torch.device | None = None
    ) -> None:
        self._model, self._device = model, model.device
        self.strengths = {adapter.name: 0.0 for adapter in adapters}
        self._changes: dict[str, list[tuple[str, LowRank | Added]]] = {}
        for adapter in adapters:
            for name, changes in adapter.changes.items():
                own = self._changes.setdefault(name, [])
                own.extend((adapter.name, _on(change, self._device)) for change in changes)
        place = torch.device(keep_on or self._device)
        pinned = place.type == "cpu" and self._device.type == "cuda"
        parameters = dict(model.named_parameters())
        self._base = {}
        for name in self._changes:
            kept = parameters[name].detach().to(place, copy=True)
            self._base[name] = kept.pin_memory() if pinned else kept

    @inference()
    def merge(self, strengths: Mapping[str, float]) -> None:
        """Make the weights anew that a change of strengths touches: W0 + sum of s (alpha / rank) B A.

        It is summed in float32 in the order of the adapters, and rounded once. At strength 0 of all of them
        a weight has the base's bytes.

        Args:
            strengths: of the adapters that change, by name; the others keep theirs.
        """
        new = {**self.strengths, **strengths}
        changed = {name for name, strength in new.items() if strength != self.strengths[name]}
        for name, changes in self._changes.items():
            if any(adapter in changed for adapter, _ in changes):
                self._write(name, self._merged(name, new))
        self.strengths = new

    def _merged(self, name: str, strengths: Mapping[str, float]) -> Tensor:
        """A weight with adapters, in float32; without any, the base's own."""
        base = self._base[name].to(self._device, non_blocking=True)
        acting = [(strengths[adapter], change) for adapter, change in self._changes[name]]
        acting = [(strength, change) for strength, change in acting if strength != 0]
        if not acting:
            return base
        weight = base.float() if base.dtype != torch.float32 else base.clone()
        for strength, change in acting:
            factor = strength * change.factor
            if isinstance(change, LowRank):
                weight.flatten(1).addmm_(change.up.float(), change.down.float(), alpha=factor)
            else:
                weight.add_(change.values.float(), alpha=factor)
        return weight

    def _write(self, name: str, value: Tensor) -> None:
        module_name, _, leaf = name.rpartition(".")
        module: nn.Module = self._model.get_submodule(module_name)
        if isinstance(module, PackedLinear | Fp8Linear):
            module.load(leaf, value)
        else:
            module.get_parameter(leaf).copy_(value)


def _on(change: LowRank | Added, device: torch.device) -> LowRank | Added:
    """A change whose tensors are the process's own, on a device: a file's are mapped, and it may change."""
    if isinstance(change, LowRank):
        return LowRank(change.up.to(device, copy=True), change.down.to(device, copy=True), change.factor)
    return Added(change.values.to(device, copy=True), change.factor)
