"""The public API: `StreamingPipeline` turns prompts into `Video`s or endless `Stream`s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
import torch

from pyrf.bundle.adapter_file import AdapterSpec
from pyrf.bundle.card import Card
from pyrf.bundle.stream_choice import StreamAsked
from pyrf.checks import check_whole
from pyrf.config import Fit, StartKind, StreamConfig
from pyrf.dtypes import name_of
from pyrf.loading import Decision, decide, load
from pyrf.models.codecs.codec import Codec
from pyrf.models.text.encoder import TextEncoder
from pyrf.streaming.change import Prompt
from pyrf.streaming.chunk import Chunk, Timing
from pyrf.streaming.expansion import Expand, expand_prompt, expand_switches
from pyrf.streaming.feeds import AnyFrames
from pyrf.streaming.metadata import clip_metadata
from pyrf.streaming.mix import GivenPrompt, is_one
from pyrf.streaming.model import StreamModel
from pyrf.streaming.prompts import PromptTimes, as_prompts, of_clip
from pyrf.streaming.restyle import DEFAULT_STRENGTH, Source, SourceControl
from pyrf.streaming.seeds import as_seeds
from pyrf.streaming.start import check_start, start_from
from pyrf.streaming.stream import Stream
from pyrf.streaming.timeline import place, switches_of
from pyrf.video.files import Video
from pyrf.video.image import Picture
from pyrf.video.writer import Frames

__all__ = ["Chunk", "Stream", "StreamingPipeline", "Timing", "Video"]


class StreamingPipeline:
    """A model, loaded and ready: call it for a `Video`, or `stream` from it without end.

    Streams of one pipeline share its weights; each has its own cache, decoder memory and random state, so
    they may run side by side. Make one by `from_pretrained`.

    Attributes:
        name: of the model, without the folder of a local one.
        student: of the weights that replace the model's, in the same way.
        choice: how it was asked to stream.
        backend: the name of who computes.
        plan: how several ranks share each stream; None: they do not.
        precision: what is computed in fewer bits than the dtype's, of `PRECISIONS` in `pyrf.backends.choice`.
        model: what its streams share.
    """

    def __init__(self, decision: Decision, model: StreamModel) -> None:
        self.name, self.student = decision.shown_name, decision.shown_student
        self.choice = decision.bundle.choice
        self.backend, self.plan = decision.setup.backend, decision.plan
        self.precision = decision.setup.precision
        self.dtype, self.device = decision.setup.dtype, decision.setup.device
        self.model_config = decision.bundle.model_config
        self.model = model

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        student: str | None = None,
        revision: str | None = None,
        backend: str = "torch",
        dtype: str | torch.dtype = "float32",
        device: str | torch.device = "cpu",
        stream: StreamAsked = (),
        exported: str | Path | None = None,
        adapters: Sequence[AdapterSpec] = (),
        shared_adapters: bool = False,
        adapter_base: str = "device",
        precision: str | None = None,
        gpus_per_stream: int | Literal["torchrun"] = 1,
        decoder_rank: int | None = None,
        max_memory: str | int | None = None,
    ) -> Self:
        """Load a model. What it will hold is logged before, by the logger `pyrf.memory`: at level INFO,
        or DEBUG where far more memory is free.

        Args:
            name: "valley" or "tiny" (bundled), a directory in diffusers' layout or in Wan's own, or a hub id.
            student: weights that replace the model's: a file or a hub id.
            revision: of the hub repository.
            backend: who computes: "torch", "onnxruntime" (on a CPU, in float32), "tensorrt" (on a GPU, in
                bfloat16 or float16), or "auto", which takes the fastest of torch and ONNX Runtime that is
                installed (`pyrf.backends.choice.fastest_backend`).
            dtype: "float32" or "bfloat16", of the network and the cache; for tensorrt also "float16".
            device: "cpu", "cuda", "cuda:1", ...
            stream: how it streams, where not as the model says: the name of a published student, such as
                "self-forcing", a .yaml file, "key=value", a mapping, or several of them in a list.
            exported: a folder that `pyrf export` wrote, for a backend that runs graphs. By default the model
                is exported when a size is first used, and kept in $PYRF_CACHE, else ~/.cache/pyrf.
            adapters: LoRA files that change the network: "a.safetensors", or with strength and name
                ("a.safetensors", 0.8, "style"). The strength is 1 and the name the file's by default.
            shared_adapters: whether a stream may change the strengths of others that run.
            adapter_base: where torch keeps the model's own values of weights that adapters change: "device",
                or "cpu", which saves a GPU's memory and makes a change of strength slower.
            precision: "fp8-attention" keeps keys and values, and multiplies in self-attention, in 8 bits
                (e4m3); "fp8" does so with the weights of the network's blocks, too, which halves their
                memory, and is for the torch backend alone. None: all in the dtype.
            gpus_per_stream: GPUs that share each stream's work, from `device` on, each with a process of its
                own, called a rank; on "cpu" processes alone. "torchrun": the processes that it has started,
                of which this call returns in the first one only.
            decoder_rank: the rank that decodes, beside the network; None: this process, after the network.
            max_memory: that one stream may take, such as "12GiB" or a number of bytes: of the GPU, else of
                the process. What has to be changed for it is chosen by `pyrf.memory.choice`. By default
                nothing is changed, and what is free is the limit. Of a stream on one GPU, or on a CPU.

        Raises:
            ValueError: when something is unknown, missing or damaged, when the stream is of other weights, or
                its settings cannot be together; and when it does not fit, before weights are read.
            OSError: when a rank cannot be started.
        """
        decision = decide(
            name,
            student=student,
            revision=revision,
            backend=backend,
            dtype=dtype,
            device=device,
            stream=stream,
            exported=exported,
            adapters=adapters,
            shared_adapters=shared_adapters,
            adapter_base=adapter_base,
            precision=precision,
            gpus_per_stream=gpus_per_stream,
            decoder_rank=decoder_rank,
            max_memory=max_memory,
        )
        return cls(decision, load(decision))

    def __repr__(self) -> str:
        return (
            f"<StreamingPipeline of {self.name}: {self.height} x {self.width} at {self.fps:g} fps, "
            f"{name_of(self.dtype)} on {self.device}, backend {self.backend}>"
        )

    @property
    def fps(self) -> float:
        """Frames per second of what it makes."""
        return self.model.fps

    @property
    def height(self) -> int:
        """Of a frame in pixels, unless a stream asks for another."""
        return self.model.height

    @property
    def width(self) -> int:
        """Of a frame in pixels, unless a stream asks for another."""
        return self.model.width

    @property
    def stream_config(self) -> StreamConfig:
        """How streams are cut into chunks."""
        return self.model.stream_config

    @property
    def card(self) -> Card:
        """What the model knows, as its bundle says it."""
        return self.model.card

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that the model has learned; empty where its bundle does not say."""
        return self.model.card.vocabulary

    @property
    def limits(self) -> tuple[str, ...]:
        """What the model cannot do, in sentences for people."""
        return self.model.card.limits

    @property
    def adapters(self) -> dict[str, float]:
        """Strengths of the adapters by name: those in force, or from the next chunk on."""
        return self.model.adapters.strengths

    def set_adapters(self, strengths: Mapping[str, float]) -> None:
        """Change strengths of adapters for streams to come; of running ones see `Stream.set_adapters`.

        Raises:
            ValueError: as that, and when a stream runs that does not share them.
        """
        checked = self.model.adapters.check(strengths)
        self.model.adapters.check_alone(None)
        self.model.adapters.want(checked)

    @property
    def text_encoder(self) -> TextEncoder:
        """Prompts to rows."""
        return self.model.text_encoder

    @property
    def codec(self) -> Codec:
        """Frames to latents and back."""
        return self.model.codec

    @overload
    def __call__(
        self,
        prompt: str | Mapping[str, float] | list[tuple[str, float]],
        num_frames: int = 81,
        seed: int = 0,
        *,
        height: int | None = None,
        width: int | None = None,
        image: Picture | None = None,
        video: Frames | None = None,
        timeline: PromptTimes | None = None,
        start: StartKind | None = None,
        fit: Fit = "crop",
        expand: Expand | None = None,
    ) -> Video: ...

    @overload
    def __call__(
        self,
        prompt: list[str] | tuple[str, ...] | list[GivenPrompt] | list[list[tuple[str, float]]],
        num_frames: int = 81,
        seed: int | Sequence[int] = 0,
        *,
        height: int | None = None,
        width: int | None = None,
        image: Picture | None = None,
        video: Frames | None = None,
        timeline: PromptTimes | None = None,
        start: StartKind | None = None,
        fit: Fit = "crop",
        expand: Expand | None = None,
    ) -> list[Video]: ...

    def __call__(
        self,
        prompt: Prompt,
        num_frames: int = 81,
        seed: int | Sequence[int] = 0,
        *,
        height: int | None = None,
        width: int | None = None,
        image: Picture | None = None,
        video: Frames | None = None,
        timeline: PromptTimes | None = None,
        start: StartKind | None = None,
        fit: Fit = "crop",
        expand: Expand | None = None,
    ) -> Video | list[Video]:
        """Make a video of `num_frames` frames, or one for each of a list of prompts.

        See `stream` for the other arguments and the errors.
        """
        check_whole("num_frames", num_frames, most=None)
        kind = check_start(self.model, start, image=image is not None, video=video is not None)
        continues = kind == "still"
        prompt = expand_prompt(expand, prompt)
        switches = expand_switches(expand, switches_of(timeline or {}))
        later = place(self.model, switches, continues=continues, num_frames=num_frames)
        stream = self.stream(
            prompt,
            seed,
            height=height,
            width=width,
            image=image,
            video=video,
            timeline=later,
            start=start,
            fit=fit,
        )
        parts: list[Frames] = []
        with stream:
            while sum(part.shape[-4] for part in parts) < num_frames:
                parts.append(next(stream).frames)
        frames = np.concatenate(parts, axis=-4)[..., :num_frames, :, :, :]
        seeds = as_seeds(seed, prompt)
        if is_one(prompt):
            return Video(frames, self.fps, self.metadata(prompt, seeds[0], later, kind))
        videos = []
        for i, (one, number) in enumerate(zip(as_prompts(prompt), seeds)):
            own = {chunk: of_clip(change, i) for chunk, change in later.items()}
            videos.append(Video(frames[i], self.fps, self.metadata(one, number, own, kind)))
        return videos

    def stream(
        self,
        prompt: Prompt,
        seed: int | Sequence[int] = 0,
        *,
        height: int | None = None,
        width: int | None = None,
        image: Picture | None = None,
        video: Frames | None = None,
        timeline: PromptTimes | None = None,
        source: Source | AnyFrames | None = None,
        strength: float = DEFAULT_STRENGTH,
        follow_motion: bool = False,
        start: StartKind | None = None,
        fit: Fit = "crop",
        expand: Expand | None = None,
    ) -> Stream:
        """Start an endless stream of chunks; nothing is computed before the first is asked for.

        Args:
            prompt: what to show; a list of B prompts gives B clips side by side. In place of a text there
                may be up to 8 (text, weight) pairs, or a mapping of these, which are blended.
            seed: the same prompts and seeds give the same frames. For B prompts B seeds, or one from which
                they count up. Element b of a batch shows what its prompt and seed show alone.
            height, width: of a frame in pixels; by default the model's.
            image: to start from: a file, an image of Pillow, or [H, W, 3] of uint8, uint16 or floats of 0..1.
            video: [T, H, W, 3] of the same kinds to continue from; whole chunks of its end are used.
            timeline: prompts, or `Change`s, that take effect later: by the chunk's index, or by a time such
                as "1:30.5", then at the first chunk that starts there or later.
            source: frames to restyle, a `Source`, or an iterator of frames at the model's rate, of which
                every one is waited for. All clips restyle the same frames.
            strength: how far the prompt changes them: 0 shows what the codec makes of them, 1 the prompt
                alone. Assign `Stream.strength` to change it later.
            follow_motion: lower the strength where the source moves.
            start: how an image begins the stream: "still" continues it, as if it had stood still until now;
                "first_frame", the default where the backend can do it, shows it as the first frame. See
                `pyrf.config.StartKind`.
            fit: what becomes of an image of another size: "crop", "pad" or "refuse".
            expand: writes these prompts out first, such as a `pyrf.PromptExpander`; blends stay as they are.

        Words that the model has not learned, and a size that it was not trained on, give a `PromptWarning`,
        once per prompt.

        Raises:
            ValueError: when an argument has the wrong kind, size or number, a prompt is empty or too long,
                or two prompts would begin with one chunk.
        """
        height, width = self.check_size(height, width)
        begins = start_from(self.model, image, video, height, width, start=start, fit=fit)
        continues = begins is not None and begins.continues
        switches = expand_switches(expand, switches_of(timeline or {}))
        placed = place(self.model, switches, continues=continues)
        control = SourceControl(strength, follow_motion)
        stream = Stream(
            self.model, expand_prompt(expand, prompt), seed, height, width, begins, placed, control
        )
        stream.set_source(source)
        return stream

    def metadata(
        self,
        prompt: GivenPrompt,
        seed: int = 0,
        timeline: PromptTimes | None = None,
        start: StartKind | None = None,
    ) -> dict[str, Any]:
        """What a file says of how its video was made: JSON values, for `pyrf.video.open_writer`.

        Args:
            prompt, seed, timeline: as for `stream`, of one clip.
            start: how it begins with an image; "still" for a video that it continues, too.
        """
        return clip_metadata(
            self.model,
            prompt,
            seed,
            timeline or {},
            start,
            name=self.name,
            student=self.student,
            asked=self.choice.to_dict(),
        )

    def check_prompt(self, prompt: str) -> None:
        """Refuse a prompt that the text encoder would not see whole, see `StreamModel.check_prompt`."""
        self.model.check_prompt(prompt)

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """The words of a prompt that the model has not learned, each with the nearest one that it has.

        They are judged by what the tokenizer makes of the prompt. The value is None where no word is near.
        """
        self.check_prompt(prompt)
        return self.model.unknown_words(prompt)

    def check_size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """The size of a frame, the model's where not given, see `StreamModel.check_size`."""
        return self.model.check_size(height, width)

    def num_frames_of(self, chunks: int) -> int:
        """Frames that the first `chunks` chunks of a stream have."""
        return self.model.num_frames_of(chunks)

    def num_chunks_of(self, num_frames: int) -> int:
        """Chunks that a stream needs for its first `num_frames` frames."""
        return self.model.num_chunks_of(num_frames)
