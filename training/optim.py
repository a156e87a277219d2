"""Optimiser of the tiny recipes: Muon for hidden matrices, AdamW for the rest; and a weight average."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pyrf.training import parallel

Tensors = tuple[Tensor, ...] | list[Tensor]


def orthogonalize(update: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix; update [..., rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; matrices of one shape are handled as a batch, kernels as matrices.

    torch.optim.Muon takes neither convolution kernels nor batches, which halves the speed of a small
    model on a CPU. Processes that train together share the work. The update's size matches AdamW's
    (factor 0.2 * sqrt(max(rows, columns))).
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state: dict[str, Any] = self.state[p]
                buffer = state.setdefault("momentum", torch.zeros_like(p))
                buffer.mul_(group["momentum"]).add_(p.grad)
                update = p.grad.add(buffer, alpha=group["momentum"]).flatten(1)
                by_shape[tuple(update.shape)].append((p, update))
            for shape, pairs in by_shape.items():
                updates = parallel.share_work(orthogonalize, torch.stack([update for _, update in pairs]))
                scale = 0.2 * max(shape) ** 0.5
                for (p, _), update in zip(pairs, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.view_as(p), alpha=-group["lr"] * scale)


def split_parameters(
    module: nn.Module, is_hidden: Callable[[str], bool]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(matrices and kernels whose name is hidden, all other parameters)."""
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in module.named_parameters():
        if p.requires_grad:
            (hidden if p.ndim in (2, 4) and is_hidden(name) else rest).append(p)
    return hidden, rest


def weight_average(module: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights that follows quickly at first."""

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(module, multi_avg_fn=average, use_buffers=False)
