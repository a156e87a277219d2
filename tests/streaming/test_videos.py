"""Finished clips from a bundle of random weights, one prompt or several, from noise or from a start."""

import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrf
from pyrf.bundle import load_bundle
from pyrf.config import StreamConfig
from pyrf.loading import Decision, load
from pyrf.memory.setup import Setup
from pyrf.pipeline import StreamingPipeline
from tests.support.random_bundle import HEIGHT, WIDTH, save_random_bundle
from tests.support.taking import BLUE, RED, frames_of, take


def test_import_needs_no_torch() -> None:
    heavy = "m for m in ('torch', 'diffusers', 'av', 'numpy') if m in sys.modules"
    code = f"import sys, pyrf; print(pyrf.__version__, *({heavy}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [pyrf.__version__]


def test_public_names_resolve() -> None:
    assert pyrf.StreamingPipeline is StreamingPipeline
    for name in pyrf.__all__:
        assert getattr(pyrf, name) is not None
        assert name in dir(pyrf)
    with pytest.raises(AttributeError, match="nothing_such"):
        pyrf.nothing_such  # noqa: B018


@pytest.mark.parametrize("num_frames", [1, 9, 10, 81])
def test_video_has_the_frames_asked_for(pipe: StreamingPipeline, num_frames: int) -> None:
    video = pipe(RED, num_frames=num_frames, seed=3)
    assert video.frames.shape == (num_frames, HEIGHT, WIDTH, 3)
    assert video.frames.dtype == np.uint8
    assert video.fps == 16
    assert video.frames.std() > 10


def test_frames_and_chunks_convert(pipe: StreamingPipeline) -> None:
    for chunks in range(1, 5):
        frames = pipe.num_frames_of(chunks)
        assert pipe.num_chunks_of(frames) == chunks
        assert pipe.num_chunks_of(frames + 1) == chunks + 1
        assert pipe.num_chunks_of(1) == 1


def test_same_seed_same_bytes(pipe: StreamingPipeline) -> None:
    first, again = pipe(RED, num_frames=57, seed=5), pipe(RED, num_frames=57, seed=5)
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, pipe(RED, num_frames=57, seed=6).frames)
    assert not np.array_equal(first.frames, pipe(BLUE, num_frames=57, seed=5).frames)


def test_a_video_is_the_start_of_its_stream(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=5) as stream:
        frames = frames_of(take(stream, 4))
    assert np.array_equal(pipe(RED, num_frames=40, seed=5).frames, frames[:40])


def test_global_random_state_is_left_alone(pipe: StreamingPipeline) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = pipe(RED, num_frames=9, seed=5).frames
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert np.array_equal(first, pipe(RED, num_frames=9, seed=5).frames)


def test_batch_elements_equal_single_runs(pipe: StreamingPipeline) -> None:
    videos = pipe([RED, BLUE, RED], num_frames=57, seed=[5, 6, 7])
    assert len(videos) == 3
    for video, prompt, seed in zip(videos, (RED, BLUE, RED), (5, 6, 7)):
        alone = pipe(prompt, num_frames=57, seed=seed)
        # Other batch sizes may sum in another order: the same up to a rounding of the last bit.
        assert np.abs(video.frames.astype(int) - alone.frames).max() <= 1
    counted = pipe([RED, BLUE, RED], num_frames=9, seed=5)
    assert all(np.array_equal(a.frames, b.frames[:9]) for a, b in zip(counted, videos))


def test_image_start_stands_for_a_still_past(pipe: StreamingPipeline) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    still = np.repeat(image[None], 9, axis=0)
    from_image = pipe(RED, num_frames=36, seed=5, image=image, start="still").frames
    assert from_image.shape[0] == 36
    assert np.array_equal(from_image, pipe(RED, num_frames=36, seed=5, video=still).frames)
    assert np.array_equal(from_image, pipe(RED, num_frames=36, seed=5, video=still[:4]).frames)
    assert not np.array_equal(from_image, pipe(RED, num_frames=36, seed=5).frames)
    with pipe.stream(RED, image=image, start="still") as stream:
        start = weakref.ref(stream._start)
        chunks = take(stream, 2)
        assert start() is None  # not kept once it is in the cache
    with pipe.stream(RED, image=image, start="still") as stream:
        start = weakref.ref(stream._start)
    assert start() is None
    assert [(chunk.index, len(chunk.frames)) for chunk in chunks] == [(0, 12), (1, 12)]


def test_video_start_uses_whole_chunks_of_its_end(pipe: StreamingPipeline) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (30, HEIGHT, WIDTH, 3), np.uint8)
    whole = pipe(RED, num_frames=12, video=clip).frames
    assert np.array_equal(whole, pipe(RED, num_frames=12, video=clip[-21:]).frames)
    assert not np.array_equal(whole, pipe(RED, num_frames=12, video=clip[-9:]).frames)


def test_of_a_long_video_only_what_the_window_holds_is_encoded(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (150, HEIGHT, WIDTH, 3), np.uint8)
    window = pipe.num_frames_of(pipe.stream_config.slots)
    encode, encoded = pipe.codec.encode, []

    def watch(frames: torch.Tensor) -> torch.Tensor:
        encoded.append(frames.shape[1])
        return encode(frames)

    monkeypatch.setattr(pipe.codec, "encode", watch)
    whole = pipe(RED, num_frames=12, video=clip).frames
    assert encoded == [window] == [33]
    assert np.array_equal(whole, pipe(RED, num_frames=12, video=clip[-window:]).frames)


def test_own_size_and_window(random_bundle: Path, pipe: StreamingPipeline) -> None:
    assert pipe(RED, num_frames=9, height=16, width=64).frames.shape == (9, 16, 64, 3)
    wide = StreamingPipeline.from_pretrained(str(random_bundle), stream="window=12")
    assert wide.stream_config == StreamConfig(window_frames=12)
    ours, theirs = (p(RED, num_frames=57, seed=5).frames for p in (wide, pipe))
    assert np.array_equal(ours[:33], theirs[:33])  # the third chunk is the last that sees all in both
    assert not np.array_equal(ours[33:], theirs[33:])


def test_bfloat16_runs(random_bundle: Path, pipe: StreamingPipeline) -> None:
    low = StreamingPipeline.from_pretrained(str(random_bundle), dtype="bfloat16")
    frames = low(RED, num_frames=9, seed=5).frames
    assert np.abs(frames.astype(int) - pipe(RED, num_frames=9, seed=5).frames).mean() < 16
    clip = torch.from_numpy(frames)[None]
    latents = low.codec.encode(clip)  # errors here would grow along the stream
    assert latents.dtype == torch.float32
    assert torch.equal(latents, pipe.codec.encode(clip))


def test_the_text_encoder_of_a_float16_model_is_in_bfloat16(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wan's activations of text leave the range of float16."""
    given: dict[str, torch.dtype] = {}
    monkeypatch.setattr("pyrf.loading.load_backend", lambda *_, **options: given.update(options))
    bundle = load_bundle(str(random_bundle))
    setup = Setup(torch.float16, torch.device("cpu"), bundle.stream_config, backend="tensorrt")
    model = load(Decision(bundle, setup))
    assert given["dtype"] == torch.float16
    assert model.text_encoder.network.token_embedding.weight.dtype == torch.bfloat16
    assert next(model.codec.network.decoder.parameters()).dtype == torch.float16  # type: ignore[attr-defined]


def test_bundle_with_its_own_geometry(tmp_path: Path) -> None:
    config = StreamConfig(chunk_frames=1, window_frames=4, sink_frames=0, denoising_steps=(1000, 500))
    path = save_random_bundle(tmp_path / "bundle", stream_config=config)
    pipe = StreamingPipeline.from_pretrained(str(path))
    with pipe.stream(RED) as stream:
        assert [len(chunk.frames) for chunk in take(stream, 6)] == [1, 4, 4, 4, 4, 4]
    assert len(pipe(RED, num_frames=7).frames) == 7
