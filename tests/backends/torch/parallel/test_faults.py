"""A rank that dies or hangs ends its streams with a clear message, and the next stream gets other ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from pyrf.backends.torch.parallel.backend import SplitBackend
from pyrf.backends.torch.parallel.messages import Plan, RankLostError
from pyrf.backends.torch.parallel.spawned import SpawnedRanks
from pyrf.pipeline import StreamingPipeline
from tests.support.forked import fork_ranks

PATIENCE_S = 2.0
END_S = 20


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        fork_ranks(patched)
        yield


@pytest.fixture(scope="module")
def pipe(random_bundle: Path, forked: None) -> Iterator[StreamingPipeline]:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), gpus_per_stream=2, decoder_rank=1)
    yield pipe
    ranks = ranks_of(pipe)
    ranks.close()
    check_gone(ranks.pids)


def ranks_of(pipe: StreamingPipeline) -> SpawnedRanks:
    assert isinstance(pipe.model.backend, SplitBackend)
    ranks = pipe.model.backend._living.get()
    assert isinstance(ranks, SpawnedRanks)
    return ranks


def test_a_rank_decodes_beside_the_network(pipe: StreamingPipeline, random_bundle: Path) -> None:
    """So the next chunk is begun ahead, and made again where the prompt changes."""
    one = StreamingPipeline.from_pretrained(str(random_bundle))
    with pipe.stream("a red circle", seed=1) as stream, one.stream("a red circle", seed=1) as expected:
        for index in range(5):
            if index == 2:
                stream.prompt = expected.prompt = "a blue square"
            chunk = next(stream)
            assert chunk.timing.denoise is None
            assert np.abs(chunk.frames.astype(int) - next(expected).frames.astype(int)).max() <= 1


def check_gone(pids: list[int]) -> None:
    _, living = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], END_S)
    assert not [process for process in living if process.status() != psutil.STATUS_ZOMBIE]


def test_a_rank_that_hangs(pipe: StreamingPipeline) -> None:
    """One that is killed: `tests/serve/sessions/test_ranks.py`."""
    message = "rank 1 hangs: it has given no sign of life for 2 s"
    ranks = ranks_of(pipe)
    ranks.plan = replace(ranks.plan, patience_s=PATIENCE_S)
    with pipe.stream("a red circle") as stream, pipe.stream("a blue square") as other:
        next(stream), next(other)
        os.kill(ranks.pids[1], signal.SIGSTOP)
        with pytest.raises(RankLostError, match=f"{message}; the stream on these 2 ranks has ended"):
            list(stream)
        assert stream.closed
        with pytest.raises(RankLostError, match=message):
            next(other)
    check_gone(ranks.pids)
    with pipe.stream("a red circle") as stream:
        assert next(stream).index == 0
    assert ranks_of(pipe) is not ranks


def test_ranks_end_with_a_process_that_is_killed(random_bundle: Path) -> None:
    program = (
        "import sys, pyrf\n"
        f"pipe = pyrf.StreamingPipeline.from_pretrained({str(random_bundle)!r}, gpus_per_stream=2)\n"
        "print(*pipe.model.backend._living.get().pids, flush=True)\n"
        "sys.stdin.read()"
    )
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **ends) as process:  # type: ignore[call-overload]
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()
    check_gone(pids)


def test_a_model_that_a_rank_cannot_load(random_bundle: Path, forked: None) -> None:
    plan = Plan({"name": str(random_bundle / "missing")}, "device", "float32", "cpu", ranks=1)
    with pytest.raises(RankLostError, match=r"rank 0 failed: BundleError: .*missing"):
        SpawnedRanks(plan)
