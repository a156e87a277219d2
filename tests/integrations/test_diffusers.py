"""The pipeline in the form of diffusers: what it makes is StreamingPipeline's, in the shapes of diffusers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.video_processor import VideoProcessor

from pyrf.integrations.diffusers import RewardForcingPipeline
from pyrf.video.reader import read_frames

PROMPT, FRAMES = "a red circle", 15


@pytest.fixture(scope="module")
def pipe(random_bundle: Path) -> RewardForcingPipeline:
    return RewardForcingPipeline.from_pretrained(str(random_bundle))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def call(pipe: RewardForcingPipeline, prompt: Any = PROMPT, **options: Any) -> Any:
    return pipe(prompt, num_frames=FRAMES, **options)


@pytest.fixture(scope="module")
def expected(pipe: RewardForcingPipeline) -> Any:
    return pipe.streaming(PROMPT, num_frames=FRAMES, seed=6).frames


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
def test_frames_are_the_streams_in_the_form_that_diffusers_gives(
    pipe: RewardForcingPipeline, expected: Any, kind: Any
) -> None:
    made = call(pipe, generator=seeded(6), output_type=kind).frames
    video = torch.from_numpy(expected).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    theirs = VideoProcessor().postprocess_video(video, output_type=kind)
    assert type(made) is type(theirs)
    if kind == "pil":
        assert [len(one) for one in made] == [len(one) for one in theirs] == [FRAMES]
        for image, frame in zip(made[0], expected):
            np.testing.assert_array_equal(np.asarray(image), frame)
        return
    assert made.shape == theirs.shape
    assert made.dtype == theirs.dtype
    np.testing.assert_allclose(np.asarray(made), np.asarray(theirs), atol=1e-6)


def test_a_list_of_prompts_takes_a_generator_each(pipe: RewardForcingPipeline, expected: Any) -> None:
    frames = call(pipe, ["a blue square", PROMPT], generator=[seeded(3), seeded(6)], output_type="np").frames
    np.testing.assert_array_equal(np.round(frames[1] * 255).astype(np.uint8), expected)
    assert not np.array_equal(frames[0], frames[1])


def test_a_tuple_in_place_of_an_object(pipe: RewardForcingPipeline, expected: Any) -> None:
    (frames,) = call(pipe, generator=seeded(6), output_type="np", return_dict=False)
    np.testing.assert_array_equal(np.round(frames[0] * 255).astype(np.uint8), expected)


def test_without_a_generator_each_call_is_another(pipe: RewardForcingPipeline) -> None:
    first, second = (call(pipe, output_type="np").frames for _ in range(2))
    assert not np.array_equal(first, second)


def test_a_callback_sees_each_chunk(pipe: RewardForcingPipeline, expected: Any) -> None:
    seen: list[tuple[int, int]] = []
    parts: list[Any] = []

    def callback(given: RewardForcingPipeline, step: int, timestep: int, kwargs: dict[str, Any]) -> Any:
        assert given is pipe
        seen.append((step, timestep))
        parts.append(kwargs["frames"])
        return kwargs

    call(pipe, generator=seeded(6), callback_on_step_end=callback)
    last = pipe.streaming.stream_config.denoising_steps[-1]
    assert seen == [(n, last) for n in range(pipe.streaming.num_chunks_of(FRAMES))]
    np.testing.assert_array_equal(np.concatenate(parts)[:FRAMES], expected)


def test_a_callback_changes_the_prompt(pipe: RewardForcingPipeline) -> None:
    def callback(_: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert kwargs == {"prompt": PROMPT if step == 0 else "a blue square"}
        return {"prompt": "a blue square"}

    frames = call(
        pipe,
        generator=seeded(6),
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["prompt"],
        output_type="np",
    ).frames
    switched = pipe.streaming(PROMPT, num_frames=FRAMES, seed=6, timeline={1: "a blue square"}).frames
    np.testing.assert_array_equal(np.round(frames[0] * 255).astype(np.uint8), switched)


def test_a_callback_interrupts(pipe: RewardForcingPipeline) -> None:
    def callback(given: RewardForcingPipeline, *_: Any) -> None:
        given.interrupt = True

    frames = call(pipe, callback_on_step_end=callback, output_type="np").frames
    assert frames.shape[1] == pipe.streaming.num_frames_of(1)
    assert call(pipe, output_type="np").frames.shape[1] == FRAMES  # the next call is not interrupted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_type": "latent"}, "pil, np or pt"),
        ({"num_frames": 0}, "num_frames"),
        ({"height": 33}, "height"),
        ({"generator": 6}, "torch.Generator"),
        ({"generator": [seeded(1), seeded(2)]}, "seed"),
        ({"callback_on_step_end_tensor_inputs": ["latents"]}, "frames and prompt"),
    ],
)
def test_bad_arguments(pipe: RewardForcingPipeline, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pipe(PROMPT, **options)


def test_it_is_there_without_diffusers() -> None:
    code = "import sys, pyrf.integrations.diffusers; assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block of docs/coming-from-diffusers.md, whose video is read back; the second is compiled."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "coming-from-diffusers.md").read_text()
    first, second = (part.split("```")[0] for part in page.split("```python\n")[1:3])
    exec(compile(first, "page", "exec"), {})
    compile(second, "page", "exec")
    assert read_frames(str(tmp_path / "out.mp4"), height=64, width=64, fps=16, limit=100).shape[0] == 33
