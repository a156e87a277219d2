"""A session whose stream several ranks share ends when one of them is lost; the server goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from pyrf.backends.torch.parallel.backend import SplitBackend
from pyrf.backends.torch.parallel.spawned import SpawnedRanks
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from tests.support.running import ROOMY, Running, close_of, read, read_frames, read_until

PATIENCE_S = 2.0


@pytest.fixture(scope="module")
def server(random_bundle: Path) -> Iterator[Running]:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), gpus_per_stream=2)
    with Running(pipe, ServeSettings(**ROOMY)) as server:
        yield server
    ranks_of(pipe).close()


def ranks_of(pipe: StreamingPipeline) -> SpawnedRanks:
    assert isinstance(pipe.model.backend, SplitBackend)
    ranks = pipe.model.backend._living.get()
    assert isinstance(ranks, SpawnedRanks)
    return ranks


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank(server: Running, number: signal.Signals) -> None:
    ranks = ranks_of(server.pipe)
    ranks.plan = replace(ranks.plan, patience_s=PATIENCE_S)
    with server.attach(server.create(pace="max")) as watched:
        read_frames(watched, 12)
        os.kill(ranks.pids[1], number)
        closing = read_until(watched, "closing")
        assert closing.reason == "rank_lost"
        assert "begin a new session" in closing.message
        with pytest.raises(ConnectionClosed) as closed:
            read(watched)
        assert close_of(closed).code == 4501
    with server.attach(server.create(pace="max")) as watched:
        read_frames(watched, 12)
    assert ranks_of(server.pipe) is not ranks
    assert not any(psutil.pid_exists(pid) for pid in ranks.pids)
