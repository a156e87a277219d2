"""What can be shared out, and what is refused; ranks are not started for it."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyrf.backends.torch.parallel.backend import SplitBackend
from pyrf.backends.torch.parallel.bands import Bands, check_ranks
from pyrf.backends.torch.parallel.messages import Plan, RankLostError
from pyrf.backends.torch.parallel.ranks import Ranks
from pyrf.config import LatentSize
from pyrf.models import wan21
from pyrf.pipeline import StreamingPipeline
from tests.support import networks

CPU = torch.device("cpu")


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))
def test_bands_share_a_frame_out(rows: int, columns: int, ranks: int) -> None:
    size = LatentSize(2 * rows, 2 * columns)
    if max(rows, columns) < ranks:
        with pytest.raises(ValueError, match=f"cannot be cut into {ranks} bands"):
            Bands.of(size, ranks)
        return
    bands = Bands.of(size, ranks)
    latents = torch.arange(4 * rows * columns, dtype=torch.int64, device="cpu").view(*size)
    parts = [bands.part(latents, rank, 2) for rank in range(ranks)]
    assert torch.equal(torch.cat(parts, bands.axis), latents)
    assert max(bands.lengths) - min(bands.lengths) <= 1
    assert math.isclose(bands.largest_share, max(part.numel() for part in parts) / latents.numel())


@pytest.mark.parametrize(("ranks", "share"), [(2, 1 / 2), (3, 1 / 3), (4, 1 / 4), (6, 1 / 6)])
def test_a_frame_of_wan_has_even_bands(ranks: int, share: float) -> None:
    assert Bands.of(LatentSize(wan21.HEIGHT // 8, wan21.WIDTH // 8), ranks).largest_share == share
    check_ranks(wan21.MODELS["Wan2.1-T2V-1.3B"].num_heads, ranks)


def test_heads_are_shared_out_evenly_or_not_at_all() -> None:
    with pytest.raises(ValueError, match="4 heads cannot be shared out evenly to 3 ranks; take 1, 2, 4"):
        StreamingPipeline.from_pretrained("tiny", gpus_per_stream=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_stream": 0}, "gpus_per_stream must be at least 1"),
        ({"gpus_per_stream": 99}, "gpus_per_stream must be at most 16"),
        ({"gpus_per_stream": "two"}, "gpus_per_stream must be a whole number"),
        ({"gpus_per_stream": 2, "decoder_rank": 2}, "decoder_rank must be at most 1"),
        ({"decoder_rank": 0}, "give gpus_per_stream, too"),
        ({"gpus_per_stream": 2, "backend": "onnxruntime"}, "needs the backend torch"),
        ({"gpus_per_stream": "torchrun"}, "torchrun has not started this process"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingPipeline.from_pretrained("tiny", **options)


class NotedRanks(Ranks):
    """Ranks that note their orders and carry none out."""

    def __init__(self) -> None:
        super().__init__(Plan({}, "device", "float32", "cpu", 2), CPU)
        self.orders: list[tuple[str, int, tuple[int, ...]]] = []
        self.closed = False

    def lose(self) -> None:
        self._why = "rank 1 ended"

    def carry_out(self, verb: str, stream: int = 0, *args: Any, x: Tensor | None = None) -> Tensor | None:
        if self.is_lost:
            raise self.error()
        order = self._order(verb, stream, args, x)
        self.orders.append((order.verb, order.stream, order.released))
        return None

    def decode(self, stream: int, latents: Tensor) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def backend_of(*ranks: NotedRanks) -> SplitBackend:
    rest = iter(ranks)
    return SplitBackend(lambda: next(rest), 2, networks.MODEL, networks.STREAM, networks.codec())


def prompt() -> Tensor:
    return torch.zeros(1, networks.MODEL.text_len, networks.MODEL.text_dim, dtype=torch.float32, device=CPU)


def test_ranks_forget_a_stream_that_is_gone_and_end_with_the_backend() -> None:
    ranks = NotedRanks()
    backend = backend_of(ranks)
    first = backend.open(1, LatentSize(4, 4), prompt())
    del first
    gc.collect()
    second = backend.open(1, LatentSize(4, 4), prompt())
    second.begin_chunk()
    assert ranks.orders == [("open", 1, ()), ("open", 2, (1,)), ("begin_chunk", 2, ())]
    del backend
    gc.collect()
    assert ranks.closed


def test_new_streams_get_other_ranks_than_lost_ones() -> None:
    lost, other = NotedRanks(), NotedRanks()
    backend = backend_of(lost, other)
    stream = backend.open(1, LatentSize(4, 4), prompt())
    lost.lose()
    backend.open(1, LatentSize(4, 4), prompt())
    assert [verb for verb, *_ in other.orders] == ["open"]
    with pytest.raises(RankLostError, match="rank 1 ended; the stream on these 2 ranks has ended"):
        stream.begin_chunk()


def test_a_fork_has_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(NotedRanks())
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="those of the process that was forked; load the model anew here"):
        backend.open(1, LatentSize(4, 4), prompt())
