"""precision="fp8-attention" from the pipeline to the server, its client and the page."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from pyrf import Stream, StreamingPipeline
from pyrf.client import Client
from pyrf.serve.settings import ServeSettings
from pyrf.streaming.chunk import Chunk
from pyrf.streaming.lockstep import next_chunks
from tests.support.browser import Visit, chromium, find_chromium
from tests.support.running import ROOMY, Running, read_frames

PROMPT = "a large red circle moves right slowly on a grey background"


def load(name: str | Path = "tiny", **options: Any) -> StreamingPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return StreamingPipeline.from_pretrained(str(name), **options)


@pytest.fixture(scope="module")
def narrow() -> StreamingPipeline:
    return load(precision="fp8-attention")


def test_a_cpu_says_that_it_imitates(random_bundle: Path) -> None:
    with pytest.warns(RuntimeWarning, match="a CPU only imitates fp8-attention"):
        StreamingPipeline.from_pretrained(str(random_bundle), precision="fp8-attention")


def test_the_first_chunk_is_near_float32_and_not_the_same(narrow: StreamingPipeline) -> None:
    expected, got = (pipe(PROMPT, num_frames=9, seed=0).frames.astype(int) for pipe in (load(), narrow))
    differences = np.abs(got - expected)
    assert 0 < differences.mean() < 4  # levels of 255


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_prompts_change_and_the_ring_is_computed_again(dtype: str, random_bundle: Path) -> None:
    pipe = load(random_bundle, precision="fp8-attention", dtype=dtype)
    with pipe.stream("a red circle", seed=0) as stream:
        for _ in range(4):
            next(stream)
        stream.set_prompt("a blue square", recache=True)
        chunk = next(stream)
    assert chunk.frames.std() > 0


def test_streams_side_by_side_are_as_alone(random_bundle: Path) -> None:
    pipe = load(random_bundle, precision="fp8-attention")

    def streams() -> list[Stream]:
        return [pipe.stream(text, seed=seed) for seed, text in enumerate(("a red circle", "a blue square"))]

    together, alone = streams(), streams()
    for _ in range(4):
        for joint, single in zip(next_chunks(together), alone):
            assert isinstance(joint, Chunk)
            difference = np.abs(joint.frames.astype(int) - next(single).frames)
            assert difference.max() <= 1


@pytest.fixture(scope="module")
def running(narrow: StreamingPipeline) -> Iterator[Running]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with Running(narrow, ServeSettings(**ROOMY)) as server:
        yield server
    torch.set_num_threads(threads)


def test_a_server_tells_programs_and_streams(running: Running) -> None:
    with Client(running.url) as client:
        assert client.server_info().precision == "fp8-attention"
    created = running.create(PROMPT, pace="max", seed=3)
    with running.attach(created) as viewer:
        assert [header.frame for header, _ in read_frames(viewer, 9)] == list(range(9))
    running.delete(created)


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")
def test_the_page_tells_people(running: Running) -> None:
    with chromium() as browser:
        visited = Visit(browser, f"{running.url}/", viewport={"width": 360, "height": 740})
        visited.await_state("idle")
        expect(visited.page.locator("#served")).to_contain_text("float32 with fp8-attention")
        visited.close()
        assert visited.problems == []
