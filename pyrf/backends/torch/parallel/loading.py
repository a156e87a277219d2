"""A bundle, loaded for streams on several ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from pyrf.backends.torch.parallel.backend import SplitBackend, check_devices
from pyrf.backends.torch.parallel.bands import check_ranks
from pyrf.backends.torch.parallel.joined import JoinedRanks, follow
from pyrf.backends.torch.parallel.messages import Plan
from pyrf.backends.torch.parallel.spawned import SpawnedRanks
from pyrf.backends.torch.parallel.torchrun import TORCHRUN, torchrun_ranks
from pyrf.bundle.bundle import Bundle
from pyrf.checks import check_whole
from pyrf.dtypes import name_of
from pyrf.models.codecs.codec import Codec


def plan_ranks(
    bundle: Bundle,
    given: Mapping[str, Any],
    ranks: int | Literal["torchrun"],
    *,
    dtype: torch.dtype,
    device: torch.device,
    adapter_base: str,
    decoder_rank: int | None,
    precision: str | None,
) -> Plan:
    """What the ranks of a bundle's streams have to know.

    Args:
        bundle: loaded; its sizes decide what will do.
        given: what it was loaded from, the arguments of `load_bundle`.
        ranks: how many, or "torchrun".
        device: "cpu", or the GPU of rank 0.
        adapter_base, precision: see `ADAPTER_BASES` and `PRECISIONS` in `pyrf.backends.choice`.
        decoder_rank: which of them decodes; None: none.

    Raises:
        ValueError: when the model cannot be split so, there are too few GPUs, or torchrun started no ranks.
    """
    threads = None
    if ranks == TORCHRUN:
        started = torchrun_ranks()
        if started is None:
            raise ValueError(
                "torchrun has not started this process as one of several; give a number of ranks"
            )
        ranks = started[1]
    elif device.type == "cpu":
        threads = max(1, torch.get_num_threads() // ranks)
    check_ranks(bundle.model_config.num_heads, ranks)
    check_devices(device, ranks)
    if decoder_rank is not None:
        check_whole("decoder_rank", decoder_rank, least=0, most=ranks - 1)
    return Plan(
        dict(given), adapter_base, name_of(dtype), str(device), ranks, decoder_rank, threads, precision
    )


def follow_rank_0(plan: Plan, ranks: int | Literal["torchrun"]) -> None:
    """Where torchrun started the ranks, return on rank 0 alone; others follow it, and exit with it."""
    started = torchrun_ranks() if ranks == TORCHRUN else None
    if started is not None and started[0] > 0:
        raise SystemExit(follow(plan, started[0]))


def load_split_backend(plan: Plan, bundle: Bundle, codec: Codec, *, joined: bool) -> SplitBackend:
    """Load a bundle's student on several ranks.

    Args:
        codec: the bundle's, loaded; it decodes where no rank does.
        joined: whether torchrun started the ranks.

    Raises:
        RankLostError: when a rank cannot be loaded, and why.
    """
    return SplitBackend(
        lambda: JoinedRanks(plan) if joined else SpawnedRanks(plan),
        plan.ranks,
        bundle.model_config,
        bundle.stream_config,
        codec,
        adapters=bundle.adapters,
        decodes=plan.decoder_rank is not None,
    )
