"""Optimisers, AdamW or Muon for hidden matrices and AdamW for the rest; and a weight average."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyrf.training.runner import processes


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

    Args:
        dtype: of the iteration; it needs few digits, and momentum stays in that of the parameters.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

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
                stacked = torch.stack([update for _, update in pairs]).to(self.dtype)
                updates = processes.share_work(orthogonalize, stacked)
                scale = 0.2 * max(shape) ** 0.5
                for (p, _), update in zip(pairs, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.view_as(p), alpha=-group["lr"] * scale)


@dataclass(frozen=True)
class Rates:
    """Learning rates and the like.

    Attributes:
        lr: Muon's learning rate; None leaves hidden matrices to AdamW as well.
        dtype: of Muon's iteration.
        scale: factors on the learning rates of parts, by the beginning of their parameters' names.
    """

    lr: float | None
    adam_lr: float
    betas: tuple[float, float]
    weight_decay: float
    scale: dict[str, float]
    dtype: torch.dtype = torch.float32


class Optimizers:
    """All optimisers of a module, as one.

    Args:
        hidden: parameters of hidden layers; Muon updates those of them that are matrices or kernels.

    Raises:
        ValueError: when a scale is of no parameter.
    """

    def __init__(self, module: nn.Module, hidden: Iterable[nn.Parameter], rates: Rates) -> None:
        self.names: dict[Tensor, str] = {}
        allowed = set(hidden)
        muons: dict[float, list[nn.Parameter]] = defaultdict(list)
        rest: dict[float, list[nn.Parameter]] = defaultdict(list)
        trained = [name for name, p in module.named_parameters() if p.requires_grad]
        for part in rates.scale:
            if not any(name.startswith(part) for name in trained):
                starts = sorted({name.split(".")[0] for name in trained})
                raise ValueError(f"lr_scale: no parameter begins with {part!r}; they begin with {starts}")
        for name, p in module.named_parameters():
            if p.requires_grad:
                self.names[p] = name
                factor = next((f for part, f in rates.scale.items() if name.startswith(part)), 1.0)
                is_muons = rates.lr is not None and p.ndim in (2, 4) and p in allowed
                (muons if is_muons else rest)[factor].append(p)
        adam = [{"params": params, "base": rates.adam_lr * factor} for factor, params in rest.items()]
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(adam, rates.adam_lr, betas=rates.betas, weight_decay=rates.weight_decay)
        ]
        if muons and rates.lr is not None:
            muon = [{"params": params, "base": rates.lr * factor} for factor, params in muons.items()]
            self.all.append(Muon(muon, rates.lr, dtype=rates.dtype))

    def step(self, factor: float) -> None:
        """Update all parameters that have a gradient, at `factor` of the learning rates."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """All tensors that a resumed run needs, `parameter/key`; of parameters that were updated once."""
        return {
            f"{self.names[p]}/{key}": value
            for optimizer in self.all
            for p, state in optimizer.state.items()
            for key, value in state.items()
        }

    def make_state(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Room for the named tensors of `state`, to be filled in place."""
        wanted = set(names)
        for optimizer in self.all:
            keys = ("momentum",) if isinstance(optimizer, Muon) else ("exp_avg", "exp_avg_sq", "step")
            for group in optimizer.param_groups:
                for p in group["params"]:
                    for key in keys:
                        if f"{self.names[p]}/{key}" in wanted:
                            room = (
                                torch.zeros((), dtype=torch.float32, device="cpu")
                                if key == "step"
                                else torch.zeros_like(p)
                            )
                            optimizer.state[p][key] = room
        return self.state()


class WeightAverage:
    """Exponential moving average of the weights.

    Args:
        names: of the parameters to average.
        decay: of the average.
        start: the step until which the average is the weights themselves; None averages from the first step
            on, with a smaller decay at first, so that it follows quickly.
    """

    def __init__(self, module: nn.Module, names: Iterable[str], decay: float, start: int | None) -> None:
        parameters = dict(module.named_parameters())
        self.parameters = {name: parameters[name] for name in names}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.decay, self.start = decay, start

    def decay_at(self, step: int) -> float:
        if self.start is None:
            return min(self.decay, (1 + step) / (10 + step))
        return self.decay if step >= self.start else 0.0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow those weights that have a gradient, which are those that `step` has updated."""
        updated = [name for name, p in self.parameters.items() if p.grad is not None]
        averages = [self.average[name] for name in updated]
        weights = [self.parameters[name].detach() for name in updated]
        if updated:
            torch._foreach_lerp_(averages, weights, 1 - self.decay_at(step))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the module's place."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(self.average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(kept[name])
