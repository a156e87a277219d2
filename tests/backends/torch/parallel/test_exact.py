"""Two and three ranks, processes of their own, make the latents that one makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pyrf.pipeline import Stream, StreamingPipeline
from pyrf.streaming.restyle import Source
from pyrf.streaming.state import StreamState
from tests.support import adapters, networks
from tests.support.forked import fork_ranks
from tests.support.random_bundle import save_random_bundle

CONFIG = replace(networks.MODEL, num_heads=6, dim=72)
CHUNKS = 8
TOLERANCE = 1e-5
ADAPTED = ("blocks.0.self_attn.q", "blocks.1.self_attn.v", "blocks.1.ffn.0")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., StreamingPipeline]:
    folder = tmp_path_factory.mktemp("parallel")
    save_random_bundle(folder / "model", model_config=CONFIG)
    parts = adapters.factors(ADAPTED, model=networks.dit(CONFIG))
    save_file(adapters.keys("comfy", parts), folder / "style.safetensors")

    def pipeline(ranks: int, precision: str | None = None) -> StreamingPipeline:
        with pytest.MonkeyPatch.context() as patched:
            fork_ranks(patched)
            return StreamingPipeline.from_pretrained(
                str(folder / "model"),
                adapters=[str(folder / "style.safetensors")],
                gpus_per_stream=ranks,
                precision=precision,
            )

    return pipeline


@pytest.fixture(scope="module")
def one(load: Callable[..., StreamingPipeline]) -> StreamingPipeline:
    return load(1)


@pytest.fixture(scope="module", params=[2, 3])
def split(
    load: Callable[..., StreamingPipeline], request: pytest.FixtureRequest
) -> Iterator[StreamingPipeline]:
    pipe = load(request.param)
    yield pipe
    pipe.model.backend._living.close()  # type: ignore[attr-defined]


def latents_of(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, change: Callable[[Stream, int], None]
) -> list[Tensor]:
    """The latents of a stream's first chunks, with something done before each."""
    made: list[Tensor] = []
    decode = StreamState._decode

    def noted(state: StreamState, latents: Tensor) -> Tensor:
        made.append(latents.clone())
        return decode(state, latents)

    with monkeypatch.context() as patched, stream:
        patched.setattr(StreamState, "_decode", noted)
        for chunk in range(CHUNKS):
            change(stream, chunk)
            next(stream)
    return made


def check_same(expected: list[Tensor], found: list[Tensor]) -> None:
    assert len(expected) == len(found) == CHUNKS
    for one, other in zip(expected, found):
        torch.testing.assert_close(other, one, rtol=0, atol=TOLERANCE)
    assert not torch.allclose(expected[0], expected[-1], atol=0.1)  # something happens in it


def test_prompts_recache_and_adapters(
    one: StreamingPipeline, split: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(stream: Stream, chunk: int) -> None:
        if chunk == 2:
            stream.set_adapters({"style": 0.3})
        if chunk == 3:
            stream.set_prompt("a blue square spins")
        if chunk == 5:
            stream.set_prompt("a red square", recache=True)
        if chunk == 6:
            stream.set_adapters({"style": 1.2})
            stream.set_prompt({"a red circle": 1.0, "a blue square": 2.0}, over=1.5)

    both = []
    for pipe in (one, split):
        pipe.set_adapters({"style": 1.0})
        both.append(latents_of(pipe.stream("a red circle moves right", seed=3), monkeypatch, change))
    check_same(*both)


def test_source(one: StreamingPipeline, split: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    video = np.random.default_rng(0).integers(0, 255, (60, 32, 48, 3), dtype=np.uint8)

    def change(stream: Stream, chunk: int) -> None:
        stream.strength = 0.4 + chunk / 20

    both = []
    for pipe in (one, split):  # it ends before the stream does, which goes on from its prompt
        stream = pipe.stream("a blue square", source=Source(iter(video)), strength=0.5)
        both.append(latents_of(stream, monkeypatch, change))
    check_same(*both)


def test_an_image_held_clips_and_uneven_bands(
    one: StreamingPipeline, split: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame of 4 x 4 tokens has no three even bands; latent frames have timesteps of their own."""
    image = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)

    def change(stream: Stream, chunk: int) -> None:
        if chunk == 4:
            stream.prompt = ["a blue circle", "a red square"]

    both = []
    for pipe in (one, split):
        stream = pipe.stream(["a red circle", "a blue square"], height=64, width=64, image=image)
        both.append(latents_of(stream, monkeypatch, change))
    check_same(*both)


@pytest.mark.filterwarnings("ignore:a CPU only imitates")
def test_eight_bits(load: Callable[..., StreamingPipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks sum in another order, by which a number may rarely be rounded to the next one of e4m3.

    Such a step is as large as those of e4m3 itself, so not all chunks need be within 1e-5.
    """
    pipes = [load(1, "fp8"), load(3, "fp8"), load(1)]
    for pipe in pipes:
        pipe.set_adapters({"style": 0.0})
    expected, found, wide = (
        torch.stack(latents_of(pipe.stream("a red circle", seed=3), monkeypatch, lambda stream, chunk: None))
        for pipe in pipes
    )
    pipes[1].model.backend._living.close()  # type: ignore[attr-defined]
    apart = (expected - found).flatten(1).abs().amax(1)
    assert (apart <= TOLERANCE).sum() >= CHUNKS / 2
    assert (expected - found).norm() < (expected - wide).norm() / 2


def test_streams_take_turns(one: StreamingPipeline, split: StreamingPipeline) -> None:
    """Each keeps its own cache on the ranks."""
    expected = [frames(one.stream("a red circle", seed=seed)) for seed in (1, 2)]
    with split.stream("a red circle", seed=1) as first, split.stream("a red circle", seed=2) as second:
        made = [(next(first).frames, next(second).frames) for _ in range(3)]
    for stream, found in zip(expected, zip(*made)):
        for a, b in zip(stream, found):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
    assert not np.array_equal(expected[0][0], expected[1][0])


def frames(stream: Stream) -> list[np.ndarray]:
    with stream:
        return [next(stream).frames for _ in range(3)]
