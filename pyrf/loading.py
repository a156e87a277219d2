"""Loading a model for streams: first all that is decided without its weights, then the weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from pyrf.backends.base import Backend
from pyrf.backends.choice import (
    AUTO,
    check_adapter_base,
    check_backend,
    check_dtype,
    check_precision,
    check_split,
    fastest_backend,
    load_backend,
)
from pyrf.backends.tensorrt.backend import TensorRTBackend
from pyrf.backends.torch.backend import TorchBackend
from pyrf.backends.torch.parallel.backend import SplitBackend
from pyrf.backends.torch.parallel.messages import Plan
from pyrf.bundle.adapter_file import AdapterSpec
from pyrf.bundle.bundle import UNDISTILLED, Bundle, load_bundle
from pyrf.bundle.stream_choice import StreamAsked
from pyrf.checks import check_device
from pyrf.dtypes import name_of, slow_on_cpu
from pyrf.memory.choice import check_engines, check_fit_together, choose_setup, parse_size, with_window
from pyrf.memory.parts import decode_by_frame
from pyrf.memory.setup import Setup
from pyrf.models.codecs.codec import Codec
from pyrf.streaming.adapters import LiveAdapters
from pyrf.streaming.model import StreamModel
from pyrf.threads import fit_threads


@dataclass(frozen=True)
class Decision:
    """How a model is loaded.

    Attributes:
        bundle: where its parts are read.
        setup: how it is held in memory.
        name: of the model, as it was asked for; None: the bundle's.
        student: of the weights that replace the model's, in the same way.
        shared_adapters: whether a stream may change the strengths of others that run.
        plan: how several ranks share each stream; None: they do not.
        joined: whether torchrun started the ranks.
    """

    bundle: Bundle
    setup: Setup
    name: str | None = None
    student: str | None = None
    shared_adapters: bool = False
    plan: Plan | None = None
    joined: bool = False

    @property
    def shown_name(self) -> str:
        """The model's name for others to read, without the folder of a local one."""
        return self.bundle.path.name if self.name is None else _shareable(self.name)

    @property
    def shown_student(self) -> str | None:
        """The student's name in the same way."""
        return None if self.student is None else _shareable(self.student)


def decide(
    name: str,
    *,
    student: str | None,
    revision: str | None = None,
    backend: str,
    dtype: str | torch.dtype,
    device: str | torch.device,
    stream: StreamAsked,
    exported: str | Path | None = None,
    adapters: Sequence[AdapterSpec],
    shared_adapters: bool = False,
    adapter_base: str,
    precision: str | None,
    gpus_per_stream: int | Literal["torchrun"],
    decoder_rank: int | None,
    max_memory: str | int | None,
) -> Decision:
    """How a model will be loaded; arguments and errors are those of `StreamingPipeline.from_pretrained`.

    Weights of adapters are read, those of the model are not. Where torchrun started the ranks, this returns
    on rank 0 alone.
    """
    check_backend(backend, exported)
    check_adapter_base(adapter_base)
    check_split(gpus_per_stream, decoder_rank, backend)
    if precision is not None and backend == AUTO:
        backend = "torch"
    check_precision(precision, backend)
    chosen_dtype, chosen_device = check_dtype(dtype, backend), check_device(device)
    if max_memory is not None:
        backend = _backend_within(max_memory, backend, gpus_per_stream)

    given: dict[str, Any] = {
        "name": name,
        "student": student,
        "revision": revision,
        "adapters": adapters,
        "stream": stream,
    }
    bundle = load_bundle(**given)
    if backend == AUTO:
        backend = fastest_backend(bundle, chosen_dtype, chosen_device)
    decision = Decision(
        bundle,
        Setup(
            chosen_dtype,
            chosen_device,
            bundle.stream_config,
            adapter_base=adapter_base,
            precision=precision,
            backend=backend,
            exported=exported,
        ),
        name=name,
        student=student,
        shared_adapters=shared_adapters,
    )
    if gpus_per_stream != 1:
        return _split(decision, given, gpus_per_stream, decoder_rank)
    return _within_memory(decision, max_memory)


def _backend_within(max_memory: str | int, backend: str, gpus_per_stream: int | str) -> str:
    """The backend that is taken within a limit: torch needs the least where none is named.

    Raises:
        ValueError: when the limit is no size, or nothing counts what would be held.
    """
    if gpus_per_stream != 1:
        raise ValueError(
            "max_memory counts the memory of one GPU, not of several; leave it or gpus_per_stream out"
        )
    parse_size(max_memory)
    return "torch" if backend == AUTO else backend


def _within_memory(decision: Decision, max_memory: str | int | None) -> Decision:
    """The decision with what has to be changed for the model to fit."""
    setup = choose_setup(decision.bundle, decision.setup, max_memory, tell=True).setup
    return replace(decision, setup=setup, bundle=with_window(decision.bundle, setup.stream.window_frames))


def _split(
    decision: Decision,
    given: Mapping[str, Any],
    ranks: int | Literal["torchrun"],
    decoder_rank: int | None,
) -> Decision:
    """The decision with a plan for several ranks; those that torchrun started follow it from here."""
    from pyrf.backends.torch.parallel.loading import follow_rank_0, plan_ranks

    setup = decision.setup
    plan = plan_ranks(
        decision.bundle,
        given,
        ranks,
        dtype=setup.dtype,
        device=setup.device,
        adapter_base=setup.adapter_base,
        decoder_rank=decoder_rank,
        precision=setup.precision,
    )
    follow_rank_0(plan, ranks)
    return replace(decision, plan=plan, joined=ranks == "torchrun")


def check_together(decisions: Mapping[str, Decision]) -> None:
    """Refuse models that one process shall hold and that do not fit into what is free.

    Args:
        decisions: for one device, by names for people.

    Raises:
        ValueError: when all together need more.
    """
    if len(decisions) > 1:
        check_fit_together({name: (one.bundle, one.setup) for name, one in decisions.items()})


def load(decision: Decision) -> StreamModel:
    """Read the weights, and warn of what somebody may not have meant.

    Raises:
        ValueError: when a file is damaged, or the backend cannot take the bundle.
        OSError: when a rank cannot be started.
    """
    bundle, setup = decision.bundle, decision.setup
    for reason in _doubts(decision):
        warnings.warn(reason, RuntimeWarning, stacklevel=3)
    if setup.device.type == "cpu":
        fit_threads()
    text_encoder = bundle.text_encoder(setup.text_dtype, setup.text_device, keep=setup.text != "freed")
    codec = bundle.codec(setup.dtype, setup.device, tiny=setup.tiny_codec)
    if setup.by_frame:
        decode_by_frame(codec)
    backend = _load_backend(decision, codec)
    if isinstance(backend, TensorRTBackend):
        check_engines(bundle, setup, backend.plans)
    merged = backend.merged if isinstance(backend, TorchBackend | SplitBackend) else None
    return StreamModel(
        text_encoder,
        codec,
        backend,
        bundle.stream_config,
        setup.device,
        bundle.height,
        bundle.width,
        bundle.card,
        LiveAdapters(bundle.adapters, merged, shared=decision.shared_adapters),
    )


def _doubts(decision: Decision) -> list[str]:
    """What people are told of a model that will show noise or be slow."""
    setup, told = decision.setup, []
    if decision.bundle.undistilled:
        told.append(f"{decision.shown_name}: {UNDISTILLED}")
    if setup.device.type == "cpu":
        reason = slow_on_cpu(setup.dtype)
        if reason is not None:
            told.append(f"{name_of(setup.dtype)} is slow on this CPU: {reason}. float32 is faster here")
        if setup.precision is not None:
            told.append(
                f"a CPU only imitates {setup.precision}, to show its pictures: it is slower than none"
            )
    return told


def _load_backend(decision: Decision, codec: Codec) -> Backend:
    setup = decision.setup
    if decision.plan is not None:
        from pyrf.backends.torch.parallel.loading import load_split_backend

        return load_split_backend(decision.plan, decision.bundle, codec, joined=decision.joined)
    return load_backend(
        setup.backend,
        decision.bundle,
        codec,
        dtype=setup.dtype,
        device=setup.device,
        exported=setup.exported,
        adapter_base=setup.adapter_base,
        precision=setup.precision,
        arenas=setup.arenas,
    )


def _shareable(name: str) -> str:
    """A model's name for others to read: of a local path the last part."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() else name
