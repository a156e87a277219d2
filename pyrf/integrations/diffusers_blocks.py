"""Streams as modular blocks of diffusers: text encoding, the chunk loop, and frames in the form asked for.

`RewardForcingBlocks().init_pipeline()` is a pipeline of all of them. A block between them, or between the
chunks of the loop, sees what they pass on, and may change it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.modular_pipelines import (
    ComponentSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)
from torch import Tensor

from pyrf.checks import check_whole
from pyrf.integrations.diffusers import Frames, as_asked, check_output_type, seeds_of
from pyrf.loop.finite import check_finite
from pyrf.loop.inference import inference
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.notices import warn
from pyrf.streaming.seeds import as_seeds

STREAMING = ComponentSpec("streaming", StreamingPipeline, "the model, loaded by pyrf")
PROMPT = InputParam("prompt", str | list[str], description="a text, or B of them")
PROMPT_EMBEDS = InputParam("prompt_embeds", Tensor, required=True, description="[B, text_len, text_dim]")
NUM_FRAMES = InputParam("num_frames", int, default=81, description="of each video; any number")


def _model(components: Any) -> StreamingPipeline:
    """The model of a pipeline.

    Raises:
        ValueError: when it has none yet.
    """
    streaming = components.streaming
    if not isinstance(streaming, StreamingPipeline):
        raise ValueError(
            f"the component streaming must be a StreamingPipeline, got {type(streaming).__name__}; "
            "call update_components(streaming=pyrf.StreamingPipeline.from_pretrained(...))"
        )
    return streaming


def _encode(streaming: StreamingPipeline, prompt: str | list[str]) -> Tensor:
    """Rows of B prompts, [B, text_len, text_dim].

    Raises:
        ValueError: when there is none, or one is empty or too long.
    """
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or not texts:
        raise ValueError(f"prompt must be a text or a list of them, got {prompt!r}")
    for text in texts:
        streaming.model.check_prompt(text)
    warn(streaming.model.notices(*texts))
    return streaming.text_encoder.encode(texts)


class TextEncoderStep(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """`prompt` to `prompt_embeds`, [B, text_len, text_dim]."""

    description = "Encodes the prompts."
    expected_components: ClassVar[list[Any]] = [STREAMING]
    inputs: ClassVar[list[Any]] = [
        InputParam("prompt", str | list[str], required=True, description="a text, or B of them")
    ]
    intermediate_outputs: ClassVar[list[Any]] = [
        OutputParam("prompt_embeds", Tensor, "[B, text_len, text_dim]")
    ]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.prompt_embeds = _encode(_model(components), block_state.prompt)
        self.set_block_state(state, block_state)
        return components, state


class FollowPromptStep(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """Of each chunk: puts in force what a block before it has put into `prompt` or `prompt_embeds`."""

    description = "Lets the next chunk see a prompt that has changed."
    expected_components: ClassVar[list[Any]] = [STREAMING]
    inputs: ClassVar[list[Any]] = [PROMPT, PROMPT_EMBEDS]

    def __call__(self, components: Any, block_state: Any, k: int) -> tuple[Any, Any]:
        if block_state.prompt != block_state.encoded:
            block_state.prompt_embeds = _encode(_model(components), block_state.prompt)
            block_state.encoded = block_state.prompt
        if block_state.prompt_embeds is not block_state.in_force:
            with inference(), _model(components).model.adapters.chunk():
                block_state.rollout.set_prompt(block_state.prompt_embeds)
            block_state.in_force = block_state.prompt_embeds
        return components, block_state


class DenoiseChunkStep(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """Of each chunk: the network's calls. `chunk_latents` are clean latents, float32 [B, F, C, h, w]."""

    description = "Computes the latents of the next chunk, and writes its keys and values to the cache."
    expected_components: ClassVar[list[Any]] = [STREAMING]

    def __call__(self, components: Any, block_state: Any, k: int) -> tuple[Any, Any]:
        adapters = _model(components).model.adapters
        with inference(), adapters.chunk():
            if block_state.weights != adapters.version:
                block_state.weights = adapters.version
                block_state.rollout.weights_changed()
            latents = block_state.loop.next_chunk()
            check_finite(f"the latents of chunk {k}", latents)
        block_state.chunk_latents = latents.clone()  # a plain tensor, which blocks behind this one may change
        return components, block_state


class DecodeChunkStep(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """Of each chunk: `chunk_latents` to `chunk_frames`, uint8 [B, T, H, W, 3], which are kept in `frames`."""

    description = "Decodes the latents of each chunk."
    expected_components: ClassVar[list[Any]] = [STREAMING]
    intermediate_outputs: ClassVar[list[Any]] = [
        OutputParam("frames", list, "of each chunk, uint8 [B, T, H, W, 3]")
    ]

    def __call__(self, components: Any, block_state: Any, k: int) -> tuple[Any, Any]:
        if k == 0:
            block_state.frames = []
        with inference():
            block_state.chunk_frames = block_state.decoder.decode(block_state.chunk_latents).cpu().numpy()
        block_state.frames.append(block_state.chunk_frames)
        return components, block_state


class StreamStep(LoopSequentialPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """The loop: its blocks run once per chunk `k`, and pass a block state on.

    The stream begins and ends with a call. Its cache never becomes a part of the pipeline's state.
    """

    description = "Streams chunks of latents and frames."
    block_classes: ClassVar[list[Any]] = [FollowPromptStep, DenoiseChunkStep, DecodeChunkStep]
    block_names: ClassVar[list[Any]] = ["prompt", "denoise", "decode"]
    loop_expected_components: ClassVar[list[Any]] = [STREAMING]
    loop_intermediate_outputs: ClassVar[list[Any]] = [
        OutputParam("latents", Tensor, "of all chunks, float32 [B, F, C, h, w]")
    ]
    loop_inputs: ClassVar[list[Any]] = [
        PROMPT,
        PROMPT_EMBEDS,
        NUM_FRAMES,
        InputParam("height", int, description="of a frame in pixels; by default the model's"),
        InputParam("width", int, description="of a frame in pixels; by default the model's"),
        InputParam("generator", torch.Generator, description="whose seed counts; or a list of B"),
    ]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        model = _model(components).model
        check_whole("num_frames", block_state.num_frames, most=None)
        size = model.latent_size(*model.check_size(block_state.height, block_state.width))
        batch = len(block_state.prompt_embeds)
        clips = [""] * batch
        seeds = as_seeds(seeds_of(block_state.generator, clips), clips)
        with inference(), model.adapters.chunk():
            block_state.weights = model.adapters.version
            block_state.rollout = model.backend.open(batch, size, block_state.prompt_embeds)
            block_state.loop = block_state.rollout.loop(seeds)
            block_state.decoder = model.backend.decoder(batch, size)
        block_state.encoded, block_state.in_force = block_state.prompt, block_state.prompt_embeds
        latents = []
        for k in range(model.num_chunks_of(block_state.num_frames)):
            components, block_state = self.loop_step(components, block_state, k=k)
            latents.append(block_state.chunk_latents)
        block_state.latents = torch.cat(latents, 1)
        self.set_block_state(state, block_state)
        return components, state


class OutputStep(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """`frames` of the chunks to `videos`, see `pyrf.integrations.diffusers.RewardForcingPipelineOutput`."""

    description = "Joins the chunks, in the form asked for."
    inputs: ClassVar[list[Any]] = [
        InputParam("frames", list, required=True, description="of each chunk, uint8 [B, T, H, W, 3]"),
        NUM_FRAMES,
        InputParam("output_type", str, default="pil", description='"pil", "np" or "pt"'),
    ]
    intermediate_outputs: ClassVar[list[Any]] = [
        OutputParam("videos", Frames, "of B prompts, num_frames frames each")
    ]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        check_output_type(block_state.output_type)
        frames = np.concatenate(block_state.frames, axis=1)[:, : block_state.num_frames]
        block_state.videos = as_asked(frames, block_state.output_type)
        self.set_block_state(state, block_state)
        return components, state


class RewardForcingBlocks(SequentialPipelineBlocks):  # type: ignore[misc]  # diffusers is not followed
    """All of it, from prompts to videos: text encoder, stream, and output.

    The pipeline of `init_pipeline()` is given its model, a `StreamingPipeline`, by
    `update_components(streaming=...)`. Its call takes `prompt`, `num_frames`, `height`, `width`, `generator`
    and `output_type`.
    """

    description = "Text to video with Reward Forcing, chunk by chunk."
    block_classes: ClassVar[list[Any]] = [TextEncoderStep, StreamStep, OutputStep]
    block_names: ClassVar[list[Any]] = ["text_encoder", "stream", "output"]
