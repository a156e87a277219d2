"""Adapters in streams: strengths change between chunks, in place, and never what another stream shows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import save_file

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.models.dit import packed_linear
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.change import Change
from pyrf.streaming.lockstep import next_chunks
from pyrf.streaming.stream import Stream
from tests.support import adapters

PROMPT = "a red circle"
Load = Callable[..., StreamingPipeline]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters that change every layer, the time's and the text's included."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("ink", "snow")):
        parts = adapters.factors((*adapters.LINEARS, *adapters.REST), seed=seed)
        save_file(adapters.keys("comfy", parts), folder / f"{name}.safetensors")
    return [folder / "ink.safetensors", folder / "snow.safetensors"]


@pytest.fixture(params=["packed", "plain"])
def load(request: pytest.FixtureRequest, random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the random bundle; with linears laid out for oneDNN, and without."""
    if request.param == "packed":
        monkeypatch.setattr(packed_linear, "MIN_WEIGHTS", 1)
    else:
        monkeypatch.setattr(packed_linear, "packs_here", lambda: False)
    return lambda **options: StreamingPipeline.from_pretrained(str(random_bundle), **options)


def frames(pipe: StreamingPipeline, chunks: int = 3, seed: int = 1) -> NDArray[np.uint8]:
    with pipe.stream(PROMPT, seed) as stream:
        return np.concatenate([next(stream).frames for _ in range(chunks)])


def rollout_of(stream: Stream) -> TorchRollout:
    assert stream._state is not None
    assert isinstance(stream._state.rollout, TorchRollout)
    return stream._state.rollout


def test_strength_zero_gives_the_bases_frames(load: Load, files: list[Path]) -> None:
    base = frames(load())
    pipe = load(adapters=[(files[0], 0.0), (files[1], 0.0)])
    assert np.array_equal(frames(pipe), base)
    pipe.set_adapters({"ink": 0.7, "snow": 0.2})
    assert not np.array_equal(frames(pipe), base)
    pipe.set_adapters({"ink": 0.0, "snow": 0.0})
    assert np.array_equal(frames(pipe), base)


def test_a_change_of_strengths_equals_loading_with_them(load: Load, files: list[Path]) -> None:
    pipe = load(adapters=files)
    assert pipe.adapters == {"ink": 1.0, "snow": 1.0}
    frames(pipe)
    pipe.set_adapters({"ink": 0.3})
    pipe.set_adapters({"snow": -0.5})
    assert pipe.adapters == {"ink": 0.3, "snow": -0.5}
    loaded = load(adapters=[(files[0], 0.3), (files[1], -0.5)])
    assert np.array_equal(frames(pipe), frames(loaded))


def test_a_running_stream_changes_at_the_next_chunk(load: Load, files: list[Path]) -> None:
    """What was kept of the prompt and of the times is made anew; what was shown before stays."""
    pipe = load(adapters=[(files[0], 0.0)])
    whole = frames(pipe, 4).reshape(-1)
    with pipe.stream(PROMPT, 1) as stream:
        parts = [next(stream).frames, next(stream).frames]
        stream.set_adapters({"ink": 1.0})
        assert stream.adapters == {"ink": 1.0}
        parts += [next(stream).frames, next(stream).frames]
        turned = rollout_of(stream)
    first, later = (np.concatenate(part).reshape(-1) for part in (parts[:2], parts[2:]))
    assert np.array_equal(whole[: first.size], first)
    assert not np.array_equal(whole[first.size :], later)
    with load(adapters=files[:1]).stream(PROMPT, 1) as merged:
        next(merged)
        rollout = rollout_of(merged)
        assert all(a.equal(b) for a, b in zip(turned.prompt.keys, rollout.prompt.keys))
        for timestep in (0.0, 1000.0):
            assert turned.time(timestep).projected.equal(rollout.time(timestep).projected)


def test_a_change_before_the_first_chunk(load: Load, files: list[Path]) -> None:
    pipe = load(adapters=files[:1])
    with pipe.stream(PROMPT, 1) as stream:
        stream.set_adapters({"ink": 0.5})
        found = np.concatenate([next(stream).frames for _ in range(3)])
    assert np.array_equal(found, frames(load(adapters=[(files[0], 0.5)])))


def test_other_streams_are_not_changed(random_bundle: Path, files: list[Path]) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), adapters=files[:1])
    with pipe.stream(PROMPT) as one:
        one.set_adapters({"ink": 0.5})
        other = pipe.stream(PROMPT)
        with pytest.raises(ValueError, match=r"1 more would change; .*shared_adapters=True"):
            one.set_adapters({"ink": 0.1})
        with pytest.raises(ValueError, match="2 more would change"):
            pipe.set_adapters({"ink": 0.1})
        assert one.adapters == {"ink": 0.5}
        other.close()
        one.set_adapters({"ink": 0.1})
    with pytest.raises(ValueError, match="the stream is closed"):
        one.set_adapters({"ink": 0.1})


def test_shared_adapters_change_all_streams(random_bundle: Path, files: list[Path]) -> None:
    """Streams of one call, and of several threads, too: no chunk is made with two sets of strengths."""
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), adapters=files[:1], shared_adapters=True)
    with pipe.stream(PROMPT, 1) as one, pipe.stream(PROMPT, 2) as two:
        next_chunks([one, two])
        one.set_adapters({"ink": 0.5})
        next_chunks([one, two])
        version = pipe.model.adapters.version
        assert one._state._weights == two._state._weights == version  # type: ignore[union-attr]
        merged = pipe.model.backend.merged  # type: ignore[attr-defined]
        inside = threading.Event()
        seen = []

        def turn() -> None:
            inside.set()
            with pipe.model.adapters.chunk():
                seen.append(dict(merged.strengths))

        with pipe.model.adapters.chunk():
            two.set_adapters({"ink": -1.0})
            thread = threading.Thread(target=turn)
            thread.start()
            assert inside.wait(300)
            assert merged.strengths == {"ink": 0.5}  # a chunk is under way
        thread.join(300)
        assert seen == [{"ink": -1.0}]


def test_refusals(random_bundle: Path, files: list[Path]) -> None:
    plain = StreamingPipeline.from_pretrained(str(random_bundle))
    with pytest.raises(ValueError, match="there are: none; give adapters when the model is loaded"):
        plain.set_adapters({"ink": 1.0})
    plain.set_adapters({})
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), adapters=files)
    for strengths, problem in (
        ({"Ink": 1.0}, "no adapter 'Ink'; there are: 'ink', 'snow'"),
        ({"ink": 1.0, "snow": "much"}, "must be a number of -10..10, got 'much'"),
        ({"ink": float("inf")}, "got inf"),
        ([("ink", 1.0)], "given by name"),
    ):
        with pytest.raises(ValueError, match=problem):
            pipe.set_adapters(strengths)  # type: ignore[arg-type]
    assert pipe.adapters == {"ink": 1.0, "snow": 1.0}
    with pytest.raises(ValueError, match="adapter_base must be one of device, cpu, got 'disk'"):
        StreamingPipeline.from_pretrained(str(random_bundle), adapter_base="disk")


def test_a_files_metadata_says_the_strengths(random_bundle: Path, files: list[Path]) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), adapters=[files[0], (files[1], 0.0)])
    assert pipe.metadata(PROMPT)["adapters"] == {"ink": 1.0}
    pipe.set_adapters({"ink": 0.0})
    assert "adapters" not in pipe.metadata(PROMPT)


def test_a_timeline_sets_strengths_at_its_chunks(load: Load, files: list[Path]) -> None:
    pipe = load(adapters=[(files[0], 0.5), (files[1], 0.0)])
    with pipe.stream(PROMPT, 1) as stream:
        expected = [next(stream).frames]
        stream.set_adapters({"ink": 0.1, "snow": 0.3})
        expected += [next(stream).frames, next(stream).frames]
    pipe.set_adapters({"ink": 0.0, "snow": 0.0})
    timeline = {0: Change(adapters={"ink": 0.5}), 1: Change(adapters={"ink": 0.1, "snow": 0.3})}
    with pipe.stream(PROMPT, 1, timeline=timeline) as stream:
        for frames_then in expected:
            assert np.array_equal(next(stream).frames, frames_then)


def test_a_timeline_may_not_change_what_another_stream_shows(load: Load, files: list[Path]) -> None:
    pipe = load(adapters=files)
    with pipe.stream(PROMPT, 1), pytest.raises(ValueError, match="1 more would change"):
        pipe.stream(PROMPT, 2, timeline={1: Change(adapters={"ink": 0.1})})
