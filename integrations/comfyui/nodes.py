"""The nodes. ComfyUI reads what they take and give from their class attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pyrf.moments import split_time
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.feeds import source_frame
from pyrf.streaming.restyle import Source
from pyrf.streaming.start import check_start
from pyrf.streaming.timeline import place, switches_of

from .host import Progress, as_frames, as_images, changed, device_of, found

CATEGORY = "pyrf"
MODEL, ADAPTERS = "PYRF_MODEL", "PYRF_ADAPTERS"
Adapters = tuple[tuple[str, float, str | None], ...]
"""File, strength and name of each adapter (LoRA)."""

TEXT = ("STRING", {"multiline": True, "default": "a red balloon rises over the hills at dusk"})
SECONDS = ("FLOAT", {"default": 5.0, "min": 0.1, "max": 3600.0, "step": 0.1})
SEED = ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "control_after_generate": True})


class LoadModel:
    """Loads a model, and a student and adapters over it. It stays loaded while only strengths change."""

    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)
    FUNCTION = "load"
    CATEGORY = CATEGORY
    DESCRIPTION = "Loads a model of pyrf: a name, a folder or a hub id; and a student's weights over it."

    def __init__(self) -> None:
        self._key: object = None
        self._pipe: StreamingPipeline | None = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        """What it takes, in ComfyUI's words."""
        return {
            "required": {
                "model": ("STRING", {"default": "valley"}),
                "student": ("STRING", {"default": "", "tooltip": "A file or a hub id; empty: none"}),
                "device": (["auto", "cpu", "cuda"],),
                "dtype": (["float32", "bfloat16"],),
                "stream": ("STRING", {"default": "", "tooltip": "A published student's name, or KEY=VALUE"}),
            },
            "optional": {"adapters": (ADAPTERS,)},
        }

    def load(
        self, model: str, student: str, device: str, dtype: str, stream: str, adapters: Adapters = ()
    ) -> tuple[StreamingPipeline]:
        """The pipeline; a ValueError says what is unknown, missing or damaged."""
        files = [(file, name, changed(file)) for file, _, name in adapters]
        key = model, student, device, dtype, stream, files
        if self._pipe is None or key != self._key:
            self._key = self._pipe = None  # two would need twice the memory
            self._pipe = StreamingPipeline.from_pretrained(
                model,
                student=student or None,
                device=device_of(device),
                dtype=dtype,
                stream=stream or (),
                adapters=adapters,
            )
            self._key = key
        strengths = dict(zip(self._pipe.adapters, [strength for _, strength, _ in adapters]))
        if strengths != self._pipe.adapters:
            self._pipe.set_adapters(strengths)
        return (self._pipe,)


class Adapter:
    """An adapter for `LoadModel`; others may come before it."""

    RETURN_TYPES = (ADAPTERS,)
    RETURN_NAMES = ("adapters",)
    FUNCTION = "add"
    CATEGORY = CATEGORY
    DESCRIPTION = "Adds an adapter (LoRA): a file of models/loras, or a path of this machine."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        """What it takes, in ComfyUI's words."""
        return {
            "required": {
                "file": ("STRING", {"default": ""}),
                "strength": ("FLOAT", {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05}),
            },
            "optional": {"adapters": (ADAPTERS,)},
        }

    @classmethod
    def IS_CHANGED(cls, file: str, **_: Any) -> str:  # noqa: N802  # ComfyUI's name
        """What differs once the file was written again."""
        return changed(found(file))

    def add(self, file: str, strength: float, adapters: Adapters = ()) -> tuple[Adapters]:
        """The adapters before it, and this one."""
        if not file.strip():
            raise ValueError("file: name an adapter, such as style.safetensors of models/loras")
        return ((*adapters, (found(file), strength, None)),)


class StreamVideo:
    """Streams seconds of video from a prompt, with later prompts, from an image or on from a video."""

    RETURN_TYPES = ("IMAGE", "FLOAT")
    RETURN_NAMES = ("images", "fps")
    FUNCTION = "make"
    CATEGORY = CATEGORY
    DESCRIPTION = "Streams video from a prompt. The preview shows each chunk as soon as it is made."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        """What it takes, in ComfyUI's words."""
        return {
            "required": {
                "model": (MODEL,),
                "prompt": TEXT,
                "seconds": SECONDS,
                "seed": SEED,
                "timeline": (
                    "STRING",
                    {
                        "multiline": True,
                        "default": "",
                        "tooltip": "TIME:PROMPT, one per line, such as 2.5:a blue square",
                    },
                ),
                "height": ("INT", {"default": 0, "min": 0, "max": 16384, "tooltip": "0: the model's"}),
                "width": ("INT", {"default": 0, "min": 0, "max": 16384, "tooltip": "0: the model's"}),
            },
            "optional": {
                "images": ("IMAGE", {"tooltip": "One is the beginning; several are a video to continue"})
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, timeline: str) -> bool | str:  # noqa: N802  # ComfyUI's name
        """True, or what is wrong with the timeline."""
        try:
            prompts_at(timeline)
        except ValueError as error:
            return str(error)
        return True

    def make(
        self,
        model: StreamingPipeline,
        prompt: str,
        seconds: float,
        seed: int,
        timeline: str,
        height: int,
        width: int,
        images: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, float]:
        """Images float32 [F, H, W, 3] of 0..1, and frames per second; a ValueError says what is wrong."""
        given: dict[str, Any] = {}
        size = model.check_size(height or None, width or None)
        if images is not None and len(images) == 1:
            given["image"] = as_frames(images)[0]
        elif images is not None:
            limit = model.num_frames_of(model.stream_config.slots)  # the window holds no more
            given["video"] = np.stack([source_frame(frame, *size) for frame in as_frames(images[-limit:])])
        num_frames = max(1, round(seconds * model.fps))
        kind = check_start(model.model, None, image="image" in given, video="video" in given)
        later = place(
            model.model,
            switches_of(prompts_at(timeline)),
            continues=kind == "still",
            num_frames=num_frames,
        )
        stream = model.stream(prompt, seed, height=size[0], width=size[1], timeline=later, **given)
        return _streamed(stream, num_frames, model.fps)


class RestyleVideo:
    """Restyles a video: a prompt changes its frames."""

    RETURN_TYPES = ("IMAGE", "FLOAT")
    RETURN_NAMES = ("images", "fps")
    FUNCTION = "make"
    CATEGORY = CATEGORY
    DESCRIPTION = "Restyles the frames of a video. It is as long as the video, which is brought to its rate."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        """What it takes, in ComfyUI's words."""
        return {
            "required": {
                "model": (MODEL,),
                "images": ("IMAGE",),
                "fps": ("FLOAT", {"default": 16.0, "min": 0.1, "max": 1000.0, "tooltip": "Of the images"}),
                "prompt": TEXT,
                "strength": ("FLOAT", {"default": 0.6, "min": 0.0, "max": 1.0, "step": 0.05}),
                "seed": SEED,
            }
        }

    def make(
        self,
        model: StreamingPipeline,
        images: torch.Tensor,
        fps: float,
        prompt: str,
        strength: float,
        seed: int,
    ) -> tuple[torch.Tensor, float]:
        """Images float32 [F, H, W, 3] of 0..1, and frames per second; a ValueError says what is wrong."""
        source = Source(iter(as_frames(images)), fps=fps, at_end="stop")
        num_frames = max(1, round(len(images) / fps * model.fps))
        stream = model.stream(prompt, seed, source=source, strength=strength)
        return _streamed(stream, num_frames, model.fps)


def _streamed(stream: Any, num_frames: int, fps: float) -> tuple[torch.Tensor, float]:
    """The first frames of a stream, each chunk shown on the way."""
    parts: list[torch.Tensor] = []
    count, progress = 0, Progress(num_frames)
    with stream:
        while count < num_frames and (chunk := next(stream, None)) is not None:
            parts.append(as_images(chunk.frames))
            count += len(chunk.frames)
            progress.show(min(count, num_frames), chunk.frames[-1])
    if not parts:
        raise ValueError("the source holds no frames")
    return torch.cat(parts)[:num_frames], fps


def prompts_at(timeline: str) -> dict[str, str]:
    """Later prompts by their times, of lines such as `1:30:a blue square`.

    Raises:
        ValueError: when a line has another form, or two have one time.
    """
    found: dict[str, str] = {}
    for line in filter(str.strip, timeline.splitlines()):
        time, prompt = split_time(line)
        if time in found:
            raise ValueError(f"timeline: two prompts at {time}; leave one of them out")
        found[time] = prompt
    return found


NODE_CLASS_MAPPINGS = {
    "PyrfLoadModel": LoadModel,
    "PyrfAdapter": Adapter,
    "PyrfStreamVideo": StreamVideo,
    "PyrfRestyleVideo": RestyleVideo,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "PyrfLoadModel": "Load pyrf model",
    "PyrfAdapter": "pyrf adapter (LoRA)",
    "PyrfStreamVideo": "Stream video (pyrf)",
    "PyrfRestyleVideo": "Restyle video (pyrf)",
}
