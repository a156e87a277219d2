"""Servers for the tests of serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from tests.support.running import Running

ROOMY = {"creates_per_minute": 1e5, "controls_per_second": 1e4}


@pytest.fixture(scope="session")
def pipe(random_bundle: Path) -> Iterator[StreamingPipeline]:
    """A small pipeline on one thread, as the server's thread and the test's share the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield StreamingPipeline.from_pretrained(str(random_bundle))
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def server(pipe: StreamingPipeline) -> Iterator[Running]:
    """A server that all tests share; they end what they begin."""
    with Running(pipe, ServeSettings(**ROOMY)) as running:
        yield running


@pytest.fixture
def serve(pipe: StreamingPipeline) -> Iterator[Callable[..., Running]]:
    """Starts servers with settings of their own."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Running(pipe, ServeSettings(**{**ROOMY, **settings})))
