"""Streams that begin with an image: as a still past, or as their own first frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.pipeline import Chunk, StreamingPipeline
from pyrf.streaming.lockstep import next_chunks
from pyrf.streaming.start import start_from
from pyrf.video.writer import Frames
from tests.support.random_bundle import HEIGHT, WIDTH, save_random_bundle

RED, BLUE = "a red circle moves right", "a blue square"


@pytest.fixture(scope="module")
def image() -> Frames:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def frame_wise(tmp_path_factory: pytest.TempPathFactory) -> StreamingPipeline:
    """Whose chunks have one latent frame."""
    config = StreamConfig(chunk_frames=1, window_frames=4, sink_frames=1, denoising_steps=(1000, 500))
    return StreamingPipeline.from_pretrained(
        str(save_random_bundle(tmp_path_factory.mktemp("bundle") / "b", stream_config=config))
    )


def reconstructed(pipe: StreamingPipeline, image: Frames) -> Frames:
    """An image as the codec shows it at a stream's begin."""
    latents = pipe.codec.encode(torch.from_numpy(image)[None, None])
    return pipe.codec.decoder().decode(latents)[0, 0].numpy()


def test_the_first_frame_is_the_image(pipe: StreamingPipeline, image: Frames) -> None:
    with pipe.stream(RED, seed=5, image=image, start="first_frame") as stream:
        chunks = [next(stream) for _ in range(3)]
    assert [len(chunk.frames) for chunk in chunks] == [9, 12, 12]
    # The decoder sees a whole chunk at once: its sums may round otherwise than those of one frame.
    shown = chunks[0].frames[0].astype(int)
    assert np.abs(shown - reconstructed(pipe, image)).max() <= 1
    other = pipe(RED, num_frames=33, seed=5).frames
    assert not np.array_equal(np.concatenate([chunk.frames for chunk in chunks])[9:], other[9:])


def test_each_start_is_repeatable_and_differs_from_the_other(pipe: StreamingPipeline, image: Frames) -> None:
    still, first = (
        [pipe(RED, num_frames=20, seed=5, image=image, start=kind) for _ in range(2)]
        for kind in ("still", "first_frame")
    )
    assert np.array_equal(still[0].frames, still[1].frames)
    assert np.array_equal(first[0].frames, first[1].frames)
    assert not np.array_equal(first[0].frames, still[0].frames)
    assert still[0].metadata["continues"] is True
    assert first[0].metadata["start"] == "first_frame"
    assert np.array_equal(pipe(RED, num_frames=20, seed=5, image=image).frames, first[0].frames)


def test_each_clip_of_a_batch_begins_with_the_image(pipe: StreamingPipeline, image: Frames) -> None:
    both = pipe([RED, BLUE], num_frames=20, seed=[5, 6], image=image, start="first_frame")
    for video, prompt, seed in zip(both, (RED, BLUE), (5, 6)):
        alone = pipe(prompt, num_frames=20, seed=seed, image=image, start="first_frame").frames
        assert np.abs(video.frames.astype(int) - alone).max() <= 1


def test_times_count_from_the_image(pipe: StreamingPipeline, image: Frames) -> None:
    """The image is shown, so the first chunk is as short as without one."""
    at = {f"{9 / pipe.fps:.6f}": BLUE}
    video = pipe(RED, num_frames=20, seed=5, image=image, start="first_frame", timeline=at)
    with pipe.stream(RED, seed=5, image=image, start="first_frame", timeline={1: BLUE}) as stream:
        frames = np.concatenate([next(stream).frames for _ in range(2)])
    assert np.array_equal(video.frames, frames[:20])


def test_in_company(pipe: StreamingPipeline, image: Frames) -> None:
    """Streams that hold a frame, or continue, are computed with others and show what they show alone."""
    asked: list[dict[str, Any]] = [
        {},
        {"image": image, "start": "first_frame"},
        {"image": image, "start": "still"},
        {},
    ]
    together = [pipe.stream(RED, seed=i, **options) for i, options in enumerate(asked)]
    alone = [pipe.stream(RED, seed=i, **options) for i, options in enumerate(asked)]
    for _ in range(3):
        for chunk, stream in zip(next_chunks(together), alone):
            expected = next(stream).frames
            assert isinstance(chunk, Chunk)
            assert chunk.frames.shape == expected.shape
            assert np.abs(chunk.frames.astype(int) - expected).max() <= 1


def test_frame_wise_streams_show_the_image_without_a_denoise_call(
    frame_wise: StreamingPipeline, image: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    compute = TorchRollout._predict

    def watched(self, latents, timestep):
        calls.append(timestep)
        return compute(self, latents, timestep)

    monkeypatch.setattr(TorchRollout, "_predict", watched)
    with frame_wise.stream(RED, seed=5, image=image, start="first_frame") as stream:
        first = next(stream)
        assert not calls
        later = [next(stream).frames for _ in range(3)]
    assert np.array_equal(first.frames, reconstructed(frame_wise, image)[None])
    assert len(calls) == 6
    # Either start writes the image's latent frame as the first chunk.
    with frame_wise.stream(RED, seed=5, image=image, start="still") as stream:
        assert len(next(stream).frames) == len(later[0]) == 4


def test_a_backend_of_one_timestep_per_chunk_refuses(
    pipe: StreamingPipeline, frame_wise: StreamingPipeline, image: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in (pipe, frame_wise):
        monkeypatch.setattr(type(one.model.backend), "has_frame_timesteps", False)
    with pytest.raises(ValueError, match='begin with start="still", or use the backend torch'):
        pipe.stream(RED, image=image, start="first_frame")
    frame_wise.stream(RED, image=image, start="first_frame").close()  # nothing of its first chunk is denoised
    pipe.stream(RED, image=image).close()


def frame_of(pipe: StreamingPipeline, image: object, **options: str) -> Frames:
    start = start_from(pipe.model, image, None, HEIGHT, WIDTH, start="first_frame", **options)  # type: ignore[arg-type]
    assert start is not None
    assert start.frames.shape == (1, HEIGHT, WIDTH, 3)
    assert start.frames.dtype == np.uint8
    return start.frames[0]


def test_pictures_of_every_kind_are_one(pipe: StreamingPipeline, image: Frames, tmp_path: Path) -> None:
    """A file, a path, an image of Pillow that EXIF turns, and an array."""
    Image.fromarray(image).save(tmp_path / "image.png")
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise
    turned = Image.fromarray(np.rot90(image).copy())
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[274] = 6
    for given in (str(tmp_path / "image.png"), tmp_path / "image.png", turned, Image.fromarray(image)):
        assert np.array_equal(frame_of(pipe, given), image)
    clear = Image.fromarray(np.concatenate([image, np.zeros((HEIGHT, WIDTH, 1), np.uint8)], -1))
    assert (frame_of(pipe, clear) == 255).all()
    frames = [Image.fromarray(image), Image.fromarray(255 - image)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="holds several frames"):
        frame_of(pipe, tmp_path / "two.gif")


def test_pictures_are_fitted(pipe: StreamingPipeline) -> None:
    """Twice as high as the frame is: its middle is cropped out, or black bars stand on both sides of it."""
    tall = np.full((2 * HEIGHT, WIDTH, 3), 200, np.uint8)
    tall[: HEIGHT // 2], tall[-(HEIGHT // 2) :] = 100, 100
    assert (frame_of(pipe, tall, fit="crop")[2:-2] == 200).all()
    padded = frame_of(pipe, tall, fit="pad")
    bar = (WIDTH - WIDTH // 2) // 2
    assert (padded[:, :bar] == 0).all()
    assert (padded[:, WIDTH - bar :] == 0).all()
    assert set(np.unique(padded[2, bar:-bar])) == {100}
    assert (padded[HEIGHT // 2, bar:-bar] == 200).all()
    with pytest.raises(ValueError, match=f"must be {HEIGHT} x {WIDTH}, got {2 * HEIGHT} x {WIDTH}"):
        frame_of(pipe, tall, fit="refuse")
