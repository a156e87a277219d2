"""What a rank holds of every stream, and how it carries orders out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from pyrf.backends.torch.backend import cache_dtype_of, load_network
from pyrf.backends.torch.parallel.exchange import Exchange
from pyrf.backends.torch.parallel.messages import Order, Plan
from pyrf.backends.torch.parallel.rollout import SplitRollout
from pyrf.bundle.bundle import load_bundle
from pyrf.dtypes import dtype_of
from pyrf.loop.inference import inference
from pyrf.models.codecs.codec import StreamingDecoder
from pyrf.models.dit.packed_linear import pack_linears


def device_of(device: str, rank: int) -> torch.device:
    """A rank's device, where rank 0 has the given one."""
    first = torch.device(device)
    return first if first.type == "cpu" else torch.device(first.type, (first.index or 0) + rank)


def join(plan: Plan, rank: int, store: dist.Store | None) -> None:
    """Become a rank of the process group.

    Args:
        store: by which the ranks find each other; None: as torchrun says.
    """
    device = device_of(plan.device, rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        # Whoever watches ranks is to find the one that hangs before the others give up.
        timeout=timedelta(seconds=plan.patience_s * (1 if store is None else 3)),
        store=store,
        rank=-1 if store is None else rank,
        world_size=-1 if store is None else plan.ranks,
    )


class Member:
    """One rank: the network's weights, its part of every stream, and on one rank the decoders.

    Args:
        plan: the ranks' own.
        rank: this process's number; `join` was called.
    """

    def __init__(self, plan: Plan, rank: int) -> None:
        self.rank, self.device, dtype = rank, device_of(plan.device, rank), dtype_of(plan.dtype)
        if plan.threads is not None:
            torch.set_num_threads(plan.threads)
        bundle = load_bundle(**plan.bundle)
        self._stream = bundle.stream_config
        self._model, self._merged = load_network(
            bundle,
            dtype=dtype,
            device=self.device,
            adapter_base=plan.adapter_base,
            precision=plan.precision,
        )
        self._cache_dtype = cache_dtype_of(plan.precision)
        pack_linears(self._model)
        self._codec = bundle.codec(dtype, self.device) if plan.decoder_rank == rank else None
        self._exchange = Exchange(init_device_mesh(self.device.type, (plan.ranks,)))
        self._rollouts: dict[int, SplitRollout] = {}
        self._decoders: dict[int, StreamingDecoder] = {}
        self._queue = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @inference()
    def carry_out(self, order: Order, given: Tensor | None) -> Tensor | None:
        """Do this rank's part of an order that all ranks get.

        Args:
            given: on rank 0, what the order comes with.

        Returns:
            On rank 0 what came of it.
        """
        for stream in order.released:
            self._rollouts.pop(stream, None)
            self._decoders.pop(stream, None)
        x = None if order.given is None else self._shared(order.given, given)
        return self._do(order, x)

    def _shared(self, given: tuple[tuple[int, ...], Any], x: Tensor | None) -> Tensor:
        shape, dtype = given
        if x is None:
            return self._exchange.broadcast(torch.empty(shape, dtype=dtype, device=self.device))
        return self._exchange.broadcast(x.to(self.device))

    def _do(self, order: Order, x: Tensor | None) -> Tensor | None:
        if order.verb == "merge":
            assert self._merged is not None
            self._merged.merge(*order.args)
        elif order.verb == "open":
            assert x is not None
            batch, size = order.args
            self._rollouts[order.stream] = SplitRollout(
                self._model, self._stream, batch, size, x, self._cache_dtype, self._exchange
            )
        else:
            call = getattr(self._rollouts[order.stream], order.verb)
            return call(*order.args) if x is None else call(x, *order.args)
        return None

    @inference()
    def decode(self, stream: int, latents: Tensor) -> Tensor:
        """Latents [B, F, C, h, w] of a stream to uint8 frames [B, T, H, W, 3] on the host, beside the calls.

        Called by one thread, in the order of the stream's chunks.
        """
        assert self._codec is not None
        if stream not in self._decoders:
            self._decoders[stream] = self._codec.decoder()
        with torch.cuda.stream(self._queue):  # None: a CPU has no such thing
            return self._decoders[stream].decode(latents.to(self.device)).cpu()
