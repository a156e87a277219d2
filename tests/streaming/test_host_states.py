"""A stream gives the same bytes whatever the program around it has set, and leaves all of it as it was."""

import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pyrf.pipeline import StreamingPipeline
from tests.support.host_states import STATES, default_dtype

Frames = NDArray[np.uint8]
BACKENDS = ("torch", "onnxruntime")


def make(bundle: Path, backend: str) -> StreamingPipeline:
    return StreamingPipeline.from_pretrained(str(bundle), backend=backend)


def shown(pipe: StreamingPipeline) -> Frames:
    """All that a stream does: a batch, a prompt that changes, a recache, evictions, an image at first."""
    parts = []
    with pipe.stream(["a red circle", "a blue square"], seed=[3, 4]) as stream:
        for chunk in range(6):
            if chunk == 4:
                stream.set_prompt("a blue circle moves left", recache=True)
            parts.append(next(stream).frames)
    picture = np.full((pipe.height, pipe.width, 3), 99, np.uint8)
    with pipe.stream("a red square", image=picture) as stream:
        parts.append(np.stack([next(stream).frames] * 2))
    return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRF_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def plain(random_bundle: Path, cache: Path) -> dict[str, tuple[StreamingPipeline, Frames]]:
    """Of each backend a pipeline that was loaded in peace, and what it shows."""
    pipes = {backend: make(random_bundle, backend) for backend in BACKENDS}
    return {backend: (pipe, shown(pipe)) for backend, pipe in pipes.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("state", STATES)
def test_streams_are_the_same(
    state: str, backend: str, plain: dict[str, tuple[StreamingPipeline, Frames]], random_bundle: Path
) -> None:
    pipe, expected = plain[backend]
    with STATES[state]():
        loaded = make(random_bundle, backend)
        assert np.array_equal(shown(pipe), expected), "streamed inside"
        assert np.array_equal(shown(loaded), expected), "loaded and streamed inside"
        found: list[Frames] = []
        thread = threading.Thread(target=lambda: found.append(shown(loaded)))
        thread.start()
        thread.join()
        assert np.array_equal(found[0], expected), "streamed by another thread"
    assert np.array_equal(shown(loaded), expected), "loaded inside"


def test_exports_are_the_same(
    plain: dict[str, tuple[StreamingPipeline, Frames]],
    random_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYRF_CACHE", str(tmp_path))
    with ExitStack() as stack:
        for state in ("default dtype float64", "inside torch.device", "inference mode", "autocast"):
            stack.enter_context(STATES[state]())
        found = shown(make(random_bundle, "onnxruntime"))
    assert np.array_equal(found, plain["onnxruntime"][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_host_has_set_stays(backend: str, random_bundle: Path, cache: Path) -> None:
    def state() -> list[Any]:
        return [
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002 (the host's own)
            random.getstate(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            np.geterr(),
            Path.cwd(),
            dict(os.environ),
        ]

    with torch.autocast("cpu", dtype=torch.bfloat16), default_dtype(torch.float64):
        before = state()
        shown(make(random_bundle, backend))
        assert state() == before


def test_the_host_may_move(random_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that was given by a relative path is found later, when a new size is exported."""
    shutil.copytree(random_bundle, tmp_path / "here" / "bundle")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYRF_CACHE", str(tmp_path / "cache"))
    pipe = make(Path("bundle"), "onnxruntime")
    monkeypatch.chdir(tmp_path / "there")
    with pipe.stream("a red circle", height=48, width=32) as stream:
        assert next(stream).frames.shape[1:] == (48, 32, 3)
