"""A pipeline that is called as diffusers' text-to-video pipelines are."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyrf.checks import check_whole
from pyrf.config import MAX_SEED
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.chunk import Chunk

OutputType = Literal["pil", "np", "pt"]
Frames = list[list[Image.Image]] | NDArray[np.float32] | torch.Tensor
StepEnd = Callable[["RewardForcingPipeline", int, int, dict[str, Any]], Mapping[str, Any] | None]
"""Called as diffusers calls it: pipeline, step, timestep, and a dictionary that it may return changed."""

TENSOR_INPUTS = ("frames", "prompt")
"""What a callback may ask for."""


@dataclass(frozen=True)
class RewardForcingPipelineOutput:
    """What a call returns.

    Attributes:
        frames: of B prompts, F frames each. "pil": B lists of F images. "np": float32 [B, F, H, W, 3] of
            0..1. "pt": float32 [B, F, 3, H, W] of 0..1, on the CPU.
    """

    frames: Frames


class RewardForcingPipeline:
    """`StreamingPipeline` with the names and shapes of diffusers' `WanPipeline`.

    It has no base class of diffusers: there are no components to exchange. `pipe.streaming` is the pipeline
    behind it, for all that diffusers has no name for.
    """

    def __init__(self, streaming: StreamingPipeline) -> None:
        self.streaming = streaming
        self.interrupt = False
        """Set it to True in a callback to end the call after the chunk under way."""

    @classmethod
    def from_pretrained(
        cls, name: str, *, torch_dtype: str | torch.dtype = "float32", **options: Any
    ) -> Self:
        """Load a model.

        Args:
            name: as for `StreamingPipeline.from_pretrained`.
            torch_dtype: its `dtype`.
            options: its others, such as `student` and `device`. The model is loaded where it is to run, so
                there is no `to`.

        Raises:
            ValueError: as that.
        """
        return cls(StreamingPipeline.from_pretrained(name, dtype=torch_dtype, **options))

    def __repr__(self) -> str:
        return f"<RewardForcingPipeline: {self.streaming!r}>"

    @property
    def fps(self) -> float:
        """Frames per second, for `diffusers.utils.export_to_video`."""
        return self.streaming.fps

    def __call__(
        self,
        prompt: str | list[str],
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 81,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("frames",),
        output_type: OutputType = "pil",
        return_dict: bool = True,
    ) -> RewardForcingPipelineOutput | tuple[Frames]:
        """Make videos.

        Args:
            prompt: a text, or B of them.
            height, width: of a frame in pixels; by default the model's.
            num_frames: of each video; any number.
            generator: its seed (`initial_seed`) is the stream's, so a generator used twice gives the same
                video. B prompts take B of them, or one from whose seed they count up. None: a random seed.
            callback_on_step_end: called after each chunk with this pipeline, the chunk's index, the timestep
                of its last denoise call, and a dictionary. What it returns may hold another "prompt", which
                is shown from the next chunk on.
            callback_on_step_end_tensor_inputs: what the dictionary holds: "frames", which are uint8
                [T, H, W, 3] with B in front for a list, and "prompt".
            output_type: see `RewardForcingPipelineOutput`.
            return_dict: False returns a tuple of the frames alone.

        Raises:
            ValueError: when an argument has the wrong kind, size or number.
        """
        check_whole("num_frames", num_frames, most=None)
        check_output_type(output_type)
        if unknown := set(callback_on_step_end_tensor_inputs) - set(TENSOR_INPUTS):
            raise ValueError(
                f"callback_on_step_end_tensor_inputs may hold {' and '.join(TENSOR_INPUTS)}, "
                f"got {', '.join(sorted(unknown))}"
            )
        self.interrupt = False
        parts: list[NDArray[np.uint8]] = []
        count = 0
        with self.streaming.stream(prompt, seeds_of(generator, prompt), height=height, width=width) as stream:
            while count < num_frames and not self.interrupt:
                chunk = next(stream)
                frames = chunk.frames if not isinstance(prompt, str) else chunk.frames[None]
                parts.append(frames)
                count += frames.shape[1]
                if callback_on_step_end is not None:
                    held = {"frames": chunk.frames, "prompt": stream.prompt}
                    given = {name: held[name] for name in callback_on_step_end_tensor_inputs}
                    returned = callback_on_step_end(self, chunk.index, self._timestep(chunk), given) or {}
                    if returned.get("prompt", stream.prompt) != stream.prompt:
                        stream.prompt = returned["prompt"]
        made = as_asked(np.concatenate(parts, axis=1)[:, :num_frames], output_type)
        return RewardForcingPipelineOutput(made) if return_dict else (made,)

    def _timestep(self, chunk: Chunk) -> int:
        config = self.streaming.stream_config
        first = config.first_chunk_steps if chunk.index == 0 else None
        return (first or config.denoising_steps)[-1]


def seeds_of(
    generator: torch.Generator | list[torch.Generator] | None, prompt: str | list[str]
) -> int | list[int]:
    """Seeds of a stream.

    Raises:
        ValueError: when it is no generator, or a seed is out of range.
    """
    if generator is None:
        return secrets.randbelow(2**31)
    many = isinstance(generator, list)
    seeds = []
    for one in generator if isinstance(generator, list) else [generator]:
        if not isinstance(one, torch.Generator):
            raise ValueError(
                f"generator must be a torch.Generator or a list of them, got {type(one).__name__}"
            )
        if not 0 <= one.initial_seed() <= MAX_SEED:
            raise ValueError(
                f"the generator's seed must lie in 0..{MAX_SEED}, got {one.initial_seed()}; call manual_seed"
            )
        seeds.append(one.initial_seed())
    if isinstance(prompt, str) and len(seeds) == 1:
        return seeds[0]
    return seeds if many else seeds[0]


def check_output_type(kind: str) -> None:
    """Refuse what is no output type.

    Raises:
        ValueError: naming those that there are.
    """
    if kind not in get_args(OutputType):
        raise ValueError(f"output_type must be pil, np or pt, got {kind!r}")


def as_asked(frames: NDArray[np.uint8], kind: OutputType) -> Frames:
    """uint8 [B, F, H, W, 3] in the form of an output type."""
    if kind == "pil":
        return [[Image.fromarray(frame) for frame in video] for video in frames]
    floats = (frames.astype(np.float32) / 255).astype(np.float32, copy=False)
    return floats if kind == "np" else torch.from_numpy(floats).permute(0, 1, 4, 2, 3)
