"""Blocks of diffusers: all together they make what StreamingPipeline makes, and others stand between them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks
from safetensors.torch import save_file

import pyrf
from pyrf.integrations.diffusers_blocks import RewardForcingBlocks
from pyrf.pipeline import StreamingPipeline
from tests.support import adapters

PROMPT, OTHER, FRAMES, SEED = "a red circle", "a blue square", 33, 6


@pytest.fixture(scope="module")
def streaming() -> StreamingPipeline:
    return StreamingPipeline.from_pretrained("tiny")


def call(blocks: Any, streaming: StreamingPipeline, output: Any = "videos", **inputs: Any) -> Any:
    pipe = blocks.init_pipeline()
    pipe.update_components(streaming=streaming)
    given: dict[str, Any] = {"prompt": PROMPT, "num_frames": FRAMES}
    if "output" in blocks.sub_blocks:
        given["output_type"] = "np"
    return pipe(output=output, **{"generator": torch.Generator().manual_seed(SEED), **given, **inputs})


def same(videos: Any, *expected: Any) -> None:
    np.testing.assert_array_equal(np.round(videos * 255).astype(np.uint8), np.stack(expected))


def test_the_frames_are_those_of_a_stream(streaming: StreamingPipeline) -> None:
    made = call(RewardForcingBlocks(), streaming, ["videos", "latents", "prompt_embeds"])
    same(made["videos"], streaming(PROMPT, num_frames=FRAMES, seed=SEED).frames)
    config = streaming.stream_config
    assert made["latents"].shape[:2] == (1, streaming.num_chunks_of(FRAMES) * config.chunk_frames)
    assert made["prompt_embeds"].shape[0] == 1


def test_several_prompts_are_made_together(streaming: StreamingPipeline) -> None:
    videos = call(RewardForcingBlocks(), streaming, prompt=[OTHER, PROMPT], num_frames=15)
    expected = [streaming(p, num_frames=15, seed=SEED + i).frames for i, p in enumerate((OTHER, PROMPT))]
    same(videos, *expected)


class Switch(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """Another prompt from chunk 2 on."""

    inputs: ClassVar[list[Any]] = [InputParam("prompt")]

    def __call__(self, components: Any, block_state: Any, k: int) -> tuple[Any, Any]:
        if k == 2:
            block_state.prompt = OTHER
        return components, block_state


def test_a_block_between_chunks_changes_the_prompt(streaming: StreamingPipeline) -> None:
    blocks = RewardForcingBlocks()
    blocks.sub_blocks["stream"].sub_blocks.insert("switch", Switch(), 0)
    expected = streaming(PROMPT, num_frames=FRAMES, seed=SEED, timeline={2: OTHER}).frames
    same(call(blocks, streaming), expected)


class Fade(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """An adapter's strength from chunk 1 on."""

    def __call__(self, components: Any, block_state: Any, k: int) -> tuple[Any, Any]:
        if k == 1:
            components.streaming.set_adapters({"ink": 0.25})
        return components, block_state


def test_a_block_between_chunks_changes_an_adapter(random_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "ink.safetensors"
    save_file(adapters.keys("comfy", adapters.factors((*adapters.LINEARS, *adapters.REST))), file)
    given, same_again = (
        StreamingPipeline.from_pretrained(str(random_bundle), adapters=[file]) for _ in range(2)
    )
    blocks = RewardForcingBlocks()
    blocks.sub_blocks["stream"].sub_blocks.insert("fade", Fade(), 0)
    timeline = {1: pyrf.Change(adapters={"ink": 0.25})}
    expected = same_again(PROMPT, num_frames=FRAMES, seed=SEED, timeline=timeline).frames
    same(call(blocks, given), expected)


class Blacken(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """Takes the latents of each chunk, and lets none of them be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def __call__(self, components: Any, block_state: Any, k: int) -> tuple[Any, Any]:
        self.seen.append(block_state.chunk_latents.clone())
        block_state.chunk_latents.mul_(0)
        return components, block_state


def test_a_block_takes_and_changes_latents(streaming: StreamingPipeline) -> None:
    """What is shown changes; the cache has the chunk as it was, so the next latents are as without it."""
    blocks = RewardForcingBlocks()
    blocks.sub_blocks["stream"].sub_blocks.insert("blacken", Blacken(), 2)
    pipe = blocks.init_pipeline()
    pipe.update_components(streaming=streaming)
    state = pipe(
        prompt=PROMPT, num_frames=FRAMES, generator=torch.Generator().manual_seed(SEED), output_type="np"
    )
    seen = torch.cat(pipe.blocks.sub_blocks["stream"].sub_blocks["blacken"].seen, 1)
    assert torch.equal(seen, call(RewardForcingBlocks(), streaming, "latents"))
    assert not state.get("latents").any()
    assert np.ptp(state.get("videos")[0, -1]) < np.ptp(call(RewardForcingBlocks(), streaming)[0, -1])


def test_latents_alone_and_rows_in_place_of_a_text(streaming: StreamingPipeline) -> None:
    """Without the decoder and what follows, and without the text encoder."""
    blocks = RewardForcingBlocks()
    for name in ("text_encoder", "output"):
        blocks.sub_blocks.pop(name)
    blocks.sub_blocks["stream"].sub_blocks.pop("decode")
    rows = streaming.text_encoder.encode([PROMPT])
    latents = call(blocks, streaming, "latents", prompt=None, prompt_embeds=rows)
    assert torch.equal(latents, call(RewardForcingBlocks(), streaming, "latents"))


def test_the_size_is_asked_for(streaming: StreamingPipeline) -> None:
    videos = call(RewardForcingBlocks(), streaming, num_frames=9, height=96, width=64)
    assert videos.shape == (1, 9, 96, 64, 3)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": []}, "a text or a list"),
        ({"num_frames": 0}, "num_frames"),
        ({"height": 33}, "height"),
        ({"generator": 6}, "torch.Generator"),
        ({"output_type": "latent", "num_frames": 1}, "pil, np or pt"),
    ],
)
def test_bad_inputs(streaming: StreamingPipeline, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(RewardForcingBlocks(), streaming, **inputs)


def test_a_pipeline_without_a_model_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="update_components"):
        RewardForcingBlocks().init_pipeline()(prompt=PROMPT)


def test_the_other_pipeline_does_without_them() -> None:
    code = "import sys, pyrf.integrations.diffusers; assert 'diffusers.modular_pipelines' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of docs/coming-from-diffusers.md on modular pipelines, as one session."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "coming-from-diffusers.md").read_text()
    section = page.split("## Modular blocks\n")[1]
    session: dict[str, Any] = {}
    for block in (part.split("```")[0] for part in section.split("```python\n")[1:]):
        exec(compile(block, "page", "exec"), session)
    assert session["videos"].shape == (1, 33, 64, 96, 3)
    assert session["latents"].shape[0] == 1
