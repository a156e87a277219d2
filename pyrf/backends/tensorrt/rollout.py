"""The TensorRT backend: engines on a GPU, driven by the same loop as torch.

The cache is torch's memory, bound to the engines as input and output at once; nothing of it is copied. What
changes from call to call (latents, modulation, rotations, position) is written to fixed buffers on a CUDA
stream, so one CUDA graph for each length of the cache serves all chunks. The decoder has its own stream.

Written against `pyrf.backends.tensorrt.device`: knows neither TensorRT nor CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from pyrf.backends.base import PendingFrames
from pyrf.backends.graphs.rollout import GraphRollout, cache_buffers, decoder_turns, keep_entries
from pyrf.backends.tensorrt.bound_plan import BoundPlan
from pyrf.backends.tensorrt.device import Device, Event, Memory, Plan, Queue
from pyrf.backends.tensorrt.nvtx import stage
from pyrf.config import LatentSize
from pyrf.dtypes import dtype_of
from pyrf.export.errors import ExportError
from pyrf.export.manifest import DECODER, STUDENT, GraphSpec, Manifest, TensorSpec
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.held import Timestep
from pyrf.ops.e4m3 import E4M3


class PlanSet:
    """The engines of an export on a device.

    Args:
        manifest: of the export.
        plans: by graph, `STUDENT` and `DECODER`.
        device: where they are loaded.

    Raises:
        ExportError: when one is missing, or its inputs and outputs are not the manifest's.
    """

    def __init__(self, manifest: Manifest, plans: Mapping[str, Plan], device: Device) -> None:
        self.manifest, self.plans, self.device = manifest, plans, device
        for name in (*STUDENT, *DECODER):
            if name not in plans:
                raise ExportError(f"there is no engine for the graph {name!r}; export the whole bundle")
            if not _fits(plans[name].spec, manifest.graphs[name]):
                raise ExportError(
                    f"the engine of {name!r} was built from another graph; remove it and export again"
                )

    def scratch(self, names: Sequence[str]) -> Memory:
        """Memory for engines that never run at once."""
        return self.device.allocate(self.scratch_bytes(names))

    def scratch_bytes(self, names: Sequence[str]) -> int:
        """Bytes of it."""
        return max(self.plans[name].scratch_bytes for name in names)


def _fits(found: GraphSpec, wanted: GraphSpec) -> bool:
    """Whether inputs and outputs are the same, in any order."""
    return (set(found.inputs), set(found.outputs)) == (set(wanted.inputs), set(wanted.outputs))


class Binder:
    """Binds engines on one stream that never run at once: they share their scratch memory.

    Args:
        plans: the engines.
        queue: where they run.
        names: of the graphs that will be bound.
    """

    def __init__(self, plans: PlanSet, queue: Queue, names: Sequence[str]) -> None:
        self._plans, self._queue, self._scratch = plans, queue, plans.scratch(names)

    def __call__(self, name: str, buffers: Mapping[str, Tensor], length: int | None = None) -> BoundPlan:
        """Bind an engine to buffers, see `BoundPlan`."""
        plan, device = self._plans.plans[name], self._plans.device
        return BoundPlan(plan, device, self._queue, self._scratch, buffers, length)

    def inputs(self, name: str) -> tuple[TensorSpec, ...]:
        """What a graph takes."""
        return self._plans.plans[name].spec.inputs


class TensorRTRollout(GraphRollout):
    """Computes the calls of one stream with engines.

    Args:
        plans: the engines.
        batch: videos made together.
        size: of the latents.
        prompt_embeds: [B, text_len, text_dim], or [1, ...] for all videos.
    """

    def __init__(self, plans: PlanSet, batch: int, size: LatentSize, prompt_embeds: Tensor) -> None:
        self.gpu, self.queue = plans.device, plans.device.stream()
        with self.gpu.on(self.queue):
            super().__init__(plans.manifest, batch, size, self.gpu.torch_device)
            bind = Binder(plans, self.queue, STUDENT)
            self._time = bind("time", {})
            self._videos = [_Video(bind, self.cache, i, self.device) for i in range(batch)]
        self.set_prompt(prompt_embeds)

    def set_prompt(self, prompt_embeds: Tensor, recache: bool = False) -> None:
        with self.gpu.on(self.queue), stage("prompt"):
            super().set_prompt(prompt_embeds, recache)

    def begin_chunk(self) -> None:
        with self.gpu.on(self.queue), stage("begin_chunk"):
            super().begin_chunk()

    def denoise(self, latents: Tensor, timestep: Timestep) -> Tensor:
        with self.gpu.on(self.queue), stage("denoise"):
            return super().denoise(latents, timestep)

    def clean(self, latents: Tensor) -> None:
        with self.gpu.on(self.queue), stage("clean"):
            super().clean(latents)

    def reopen_chunk(self) -> None:
        with self.gpu.on(self.queue):
            super().reopen_chunk()

    def _modulate(self, row: Tensor) -> Tensor:
        self._time["sinusoid"].copy_(self._upload(row))
        self._time.run()
        return self._time["modulation"].clone()

    def _upload(self, x: Tensor) -> Tensor:
        """Without waiting for it: the copy stands on the stream."""
        staged = self.gpu.pinned(tuple(x.shape), x.dtype).copy_(x)
        return staged.to(self.device, non_blocking=True)


class _Video:
    """The buffers of one video of a batch, and the engines bound to them."""

    def __init__(self, bind: Binder, cache: SinkRingCache, index: int, device: torch.device) -> None:
        self.cache = cache
        self._kv = cache_buffers(cache, index)
        self._prompt = bind("prompt", {})
        self._inputs: dict[str, Tensor] = {}
        for spec in bind.inputs("denoise"):
            if spec.name.startswith("cross_"):
                self._inputs[spec.name] = self._prompt[spec.name]
            elif spec.name not in self._kv and spec.name != "length":
                dtype = dtype_of(spec.dtype)
                self._inputs[spec.name] = torch.zeros(spec.shape, dtype=dtype, device=device)
        buffers = self._inputs | self._kv
        self._denoise = _ByLength(partial(bind, "denoise", buffers))
        self._clean = _ByLength(partial(bind, "clean", buffers))

    def encode_prompt(self, rows: Tensor) -> None:
        self._prompt["prompt_embeds"].copy_(rows)
        self._prompt.run()

    def _set_call(self, latents: Tensor, modulation: Tensor, rope: Tensor, slot: int | Tensor) -> None:
        for name, x in (("latents", latents), ("modulation", modulation), ("rope", rope)):
            self._inputs[name].copy_(x)
        position = self._inputs["position"]
        if isinstance(slot, int):
            position.fill_(slot * self.cache.tokens)
        else:
            position.copy_(slot.view(1) * self.cache.tokens)

    def denoise(self, latents: Tensor, modulation: Tensor, rope: Tensor) -> Tensor:
        self._set_call(latents, modulation, rope, self.cache.slot)
        bound = self._denoise[self.cache.length]
        bound.run()
        return bound["flow"][0]

    def clean(self, latents: Tensor, modulation: Tensor, rope: Tensor) -> None:
        order = self.cache.order
        if order is None:
            self._set_call(latents, modulation, rope, self.cache.slot)
            bound = self._clean[self.cache.length]
            bound.run()
            keep_entries(self.cache, self._kv, bound)
            return
        # A past chunk sees some slots only: they move to the front for the call, and back.
        seen = len(order)
        rest = [i for i in range(self.cache.stream.slots) if i not in order.tolist()]
        moved = torch.cat((order, torch.tensor(rest, dtype=order.dtype, device="cpu").to(order.device)))
        self._permute(moved)
        self._set_call(latents, modulation, rope, seen - 1)
        bound = self._clean[seen * self.cache.tokens]
        bound.run()
        self._permute(moved.argsort())
        keep_entries(self.cache, self._kv, bound)

    def _permute(self, order: Tensor) -> None:
        for buffer in self._kv.values():
            if buffer.dtype == E4M3:  # torch indexes bytes, not e4m3
                buffer = buffer.view(torch.uint8)
            slots = buffer.unflatten(2, (-1, self.cache.tokens))
            slots.copy_(slots.index_select(2, order))


class _ByLength:
    """A call bound once for each length of the cache, when that is first met."""

    def __init__(self, bind: Callable[[int], BoundPlan]) -> None:
        self._bind = bind
        self._bound: dict[int, BoundPlan] = {}

    def __getitem__(self, length: int) -> BoundPlan:
        if length not in self._bound:
            self._bound[length] = self._bind(length)
        return self._bound[length]


class _FramesUnderWay:
    """Frames under way on the decoder's stream.

    Args:
        latents: what is decoded, kept until then.
        frames: pinned host memory that a video's frames go to, [T, H, W, 3].
        done: the end of the work.
    """

    def __init__(self, latents: Tensor, frames: list[Tensor], done: Event) -> None:
        self._latents, self._frames, self._done = latents, frames, done

    def result(self) -> Tensor:
        """Wait for them: uint8 [B, T, H, W, 3] on the host."""
        self._done.synchronize()
        return torch.stack(self._frames)


class TensorRTDecoder:
    """Decodes a stream, on a CUDA stream of its own (`pyrf.models.codecs.codec.StreamingDecoder`).

    Args:
        plans: the engines.
        batch: videos made together.
    """

    def __init__(self, plans: PlanSet, batch: int) -> None:
        self._gpu, self._queue = plans.device, plans.device.stream()
        self._shape = (batch, *plans.manifest.graphs["decoder_next"].inputs[0].shape[1:])
        with self._gpu.on(self._queue):
            bind = Binder(plans, self._queue, DECODER)
            self._videos = [_VideoDecoder(plans, bind) for _ in range(batch)]

    def begin(self, latents: Tensor) -> PendingFrames:
        """Decode a chunk [B, F, C, h, w] while the host and torch's current stream go on.

        Raises:
            ValueError: when the shape is not that of a chunk.
        """
        if tuple(latents.shape) != self._shape:
            raise ValueError(f"latents must be a chunk {list(self._shape)}, got {list(latents.shape)}")
        with stage("decode"), self._gpu.on(self._queue, join=False):
            frames = [video.begin(x) for video, x in zip(self._videos, latents)]
            return _FramesUnderWay(latents, frames, self._queue.record())

    def decode(self, latents: Tensor) -> Tensor:
        """Chunks [B, n F, C, h, w] to frames uint8 [B, T, H, W, 3] on the host."""
        return torch.cat([self.begin(x).result() for x in latents.split(self._shape[1], 1)], 1)


class _VideoDecoder:
    """The decoder of one video."""

    def __init__(self, plans: PlanSet, bind: Binder) -> None:
        self._gpu = plans.device
        self._turns = decoder_turns(plans.manifest, bind)

    def begin(self, latents: Tensor) -> Tensor:
        """A chunk [F, C, h, w] to the host memory where its frames [T, H, W, 3] will be."""
        bound = next(self._turns)
        bound["latents"].copy_(latents[None])
        bound.run()
        frames = bound["frames"][0]
        return self._gpu.pinned(tuple(frames.shape), frames.dtype).copy_(frames, non_blocking=True)
