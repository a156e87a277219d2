"""The ONNX Runtime backend through the public API: what torch shows, for every kind of stream."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyrf
from pyrf import cli
from pyrf.backends.onnxruntime.rollout import OnnxRuntimeRollout
from pyrf.config import LatentSize
from pyrf.export.errors import ExportError
from pyrf.pipeline import StreamingPipeline
from tests.support import networks

RED, BLUE = "a red circle moves right", "a blue square spins"
CHUNKS = networks.STREAM.slots + 2


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of this module's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(networks.bundle(tmp_path_factory.mktemp("bundle") / "small"))


@pytest.fixture(scope="module")
def pipes(saved: str, cache: Path) -> Iterator[tuple[StreamingPipeline, StreamingPipeline]]:
    """The bundle in torch and in ONNX Runtime, exported as it is loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRF_CACHE", str(cache))
        eager, exported = (
            StreamingPipeline.from_pretrained(saved, backend=name) for name in ("torch", "onnxruntime")
        )
        yield eager, exported


def frames(pipe: StreamingPipeline, *arguments, switch=None, recache=False, **options) -> np.ndarray:
    """All frames of a few chunks; the prompt may change in the middle."""
    with pipe.stream(*arguments, **options) as stream:
        parts = []
        for i in range(CHUNKS):
            if switch is not None and i == CHUNKS - 2:
                stream.set_prompt(switch, recache=recache)
            parts.append(next(stream).frames)
    return np.concatenate(parts, axis=-4)


def assert_same(pipes, *arguments, **options) -> np.ndarray:
    """Rounding may move a pixel by one level, and few of them."""
    expected, found = (frames(pipe, *arguments, **options) for pipe in pipes)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    return found


def test_the_tiny_bundle_shows_what_torch_shows(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRF_CACHE", str(cache))
    expected, found = (
        pyrf.StreamingPipeline.from_pretrained("tiny", backend=name)(RED, num_frames=93, seed=1).frames
        for name in ("torch", "onnxruntime")
    )
    noise = np.square(expected.astype(float) - found).mean()
    assert 10 * np.log10(255**2 / max(noise, 1e-9)) >= 50


def test_one_prompt(pipes) -> None:
    assert_same(pipes, RED, 3)


def test_a_batch_is_its_videos(pipes) -> None:
    batch = assert_same(pipes, [RED, BLUE], [5, 6])
    alone = frames(pipes[1], BLUE, 6)
    # The text encoder of a batch has other matrix products, so the last bit may differ.
    assert np.abs(batch[1].astype(int) - alone).max() <= 1


@pytest.mark.parametrize("recache", [False, True])
def test_a_prompt_switch(pipes, recache: bool) -> None:
    switched = assert_same(pipes, [RED, RED], 1, switch=BLUE, recache=recache)
    assert (switched != frames(pipes[1], [RED, RED], 1)).any()


def test_a_video_to_continue_from(pipes) -> None:
    video = np.random.default_rng(0).integers(0, 255, (20, 32, 48, 3), dtype=np.uint8)
    continued = assert_same(pipes, RED, 1, video=video)
    assert len(continued) == 4 * networks.STREAM.chunk_frames * CHUNKS  # no chunk is a stream's first
    assert (continued[:5] != frames(pipes[1], RED, 1)[:5]).any()


def test_other_windows_have_exports_of_their_own(saved: str, cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYRF_CACHE", str(cache))
    pipes = [
        StreamingPipeline.from_pretrained(saved, backend=name, stream="window=4")
        for name in ("torch", "onnxruntime")
    ]
    assert_same(pipes, RED, 1)


def test_streams_of_one_pipeline_do_not_touch_each_other(pipes) -> None:
    alone = frames(pipes[1], RED, 1)
    with pipes[1].stream(RED, 1) as one, pipes[1].stream(BLUE, 2) as other:
        parts = []
        for _ in range(CHUNKS):
            parts.append(next(one).frames)
            next(other)
    np.testing.assert_array_equal(np.concatenate(parts), alone)


def test_close_frees_the_cache(pipes) -> None:
    stream = pipes[1].stream(RED)
    next(stream)
    rollout = weakref.ref(stream._state.rollout)
    buffer = weakref.ref(stream._state.rollout.cache.keys[0])
    stream.close()
    assert rollout() is None
    assert buffer() is None


def opened(pipe: StreamingPipeline) -> OnnxRuntimeRollout:
    rollout = pipe.model.backend.open(1, LatentSize(4, 6), torch.zeros(1, 8, 16))
    assert isinstance(rollout, OnnxRuntimeRollout)
    return rollout


def test_verbs_out_of_order_are_refused(pipes) -> None:
    rollout = opened(pipes[1])
    with pytest.raises(ValueError, match=r"prompt_embeds must be \[B, 8, 16\], got \[1, 3, 16\]"):
        rollout.set_prompt(torch.zeros(1, 3, 16))
    shape = (1, 2, 16, 4, 6)
    with pytest.raises(RuntimeError, match=r"begin_chunk\(\)"):
        rollout.denoise(torch.zeros(shape), 1000.0)
    rollout.begin_chunk()
    with pytest.raises(ValueError, match=r"latents must be \[1, 2, 16, 4, 6\]"):
        rollout.clean(torch.zeros(1, 2, 16, 4, 8))


@pytest.fixture(scope="module")
def exported(pipes) -> Path:
    """The folder that the pipeline was exported to."""
    return opened(pipes[1]).graphs.folder


def test_another_size_than_the_exports_is_refused(saved: str, exported: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(saved, backend="onnxruntime", exported=exported)
    assert_same((pipe, pipe), RED)
    with pytest.raises(ExportError, match="exported for frames of 32 x 48, got 64 x 48; take its height"):
        pipe.stream(RED, height=64)
    with pytest.raises(ExportError, match="exported for frames of 32 x 48, got 64 x 48"):
        pipe.model.backend.decoder(1, LatentSize(8, 6))
    with pytest.raises(ExportError, match="exported for latents of 4 x 6, got 8 x 6"):
        OnnxRuntimeRollout(opened(pipe).graphs, 1, LatentSize(8, 6), torch.zeros(1, 8, 16))


def test_a_truncated_graph_is_refused(pipes, exported: Path, tmp_path: Path) -> None:
    """Also where nobody looked at its checksum."""
    graphs = opened(pipes[1]).graphs
    (tmp_path / "denoise.onnx").write_bytes((exported / "denoise.onnx").read_bytes()[:-1000])
    cut = type(graphs)(tmp_path, graphs.manifest, threads=1)
    with pytest.raises(ExportError, match=r"denoise.onnx: ONNX Runtime cannot load it"):
        cut["denoise"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "computes in float32 on the CPU, got torch.bfloat16"),
        ({"exported": "nowhere"}, "no such file; export the bundle"),
        ({"backend": "torch", "exported": "x"}, "the torch backend reads no exported folder"),
        ({"backend": "onnx"}, "backend must be one of torch, onnxruntime, tensorrt, got 'onnx'"),
    ],
)
def test_what_cannot_work_is_refused_when_loading(saved: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingPipeline.from_pretrained(saved, **({"backend": "onnxruntime"} | options))


def test_the_commands_take_an_export(saved: str, exported: Path, tmp_path: Path, capsys) -> None:
    common = ["--model", saved, "--backend", "onnxruntime", "--exported", str(exported)]
    assert cli.run(["generate", RED, "-o", f"{tmp_path}/out.mp4", "--seconds", "1", *common]) == 0
    assert (tmp_path / "out.mp4").is_file()
    assert cli.run(["bench", "--chunks", "2", "--repeats", "1", "--warm-up", "1", "--json", *common]) == 0
    assert '"backend": "onnxruntime"' in capsys.readouterr().out


@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_a_source_is_restyled_as_by_torch(pipes, strength: float) -> None:
    """The encoder is torch's; levels are others than the student's own."""
    clip = frames(pipes[0], BLUE, seed=5)
    assert_same(pipes, [RED, BLUE], seed=2, source=clip, strength=strength, follow_motion=True)


@pytest.mark.parametrize(
    "asked",
    [
        ["chunk_frames=1", "window=3", "sink=1", "steps=1000,500", "sampler=unipc"],
        pytest.param(
            ["chunk_frames=8", "window=16", "sink=0", "first_chunk_steps=1000"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["one", "eight"],
)
def test_chunks_of_other_lengths(
    saved: str, cache: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setenv("PYRF_CACHE", str(cache))
    pipes = [
        StreamingPipeline.from_pretrained(saved, stream=asked, backend=name)
        for name in ("torch", "onnxruntime")
    ]
    chunk = pipes[0].stream_config.chunk_frames
    assert len(assert_same(pipes, RED, seed=3, switch=BLUE)) == 4 * chunk * CHUNKS - 3


def test_graphs_continue_an_image_and_hold_no_first_frame(pipes) -> None:
    """They have one timestep per chunk; without being asked they begin as they can."""
    eager, exported = pipes
    image = np.random.default_rng(0).integers(0, 256, (exported.height, exported.width, 3), np.uint8)
    assert_same(pipes, RED, seed=3, image=image, start="still")
    found = exported(RED, num_frames=9, seed=3, image=image)
    assert np.array_equal(
        found.frames, exported(RED, num_frames=9, seed=3, image=image, start="still").frames
    )
    assert found.metadata["continues"] is True
    assert eager(RED, num_frames=9, seed=3, image=image).metadata["start"] == "first_frame"
    with pytest.raises(ValueError, match='begin with start="still", or use the backend torch'):
        exported.stream(RED, image=image, start="first_frame")
    rollout = exported.model.backend.open(
        1, exported.model.latent_size(exported.height, exported.width), exported.text_encoder.encode([RED])
    )
    rollout.begin_chunk()
    with pytest.raises(ValueError, match="one timestep for all frames of a chunk"):
        rollout.denoise(torch.zeros(1, *rollout.shape), (0.0, 1000.0))
