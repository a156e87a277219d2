"""The public API: `StreamingPipeline` turns prompts into `Video`s or endless `Stream`s."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch

from pyrf import __version__
from pyrf.backends.choice import check_adapter_base, check_backend, check_dtype, load_backend
from pyrf.backends.torch.backend import TorchBackend
from pyrf.bundle.adapter_file import AdapterSpec
from pyrf.bundle.bundle import UNDISTILLED, Bundle, load_bundle
from pyrf.bundle.card import Card
from pyrf.bundle.stream_choice import StreamAsked
from pyrf.checks import check_device, check_whole
from pyrf.config import Fit, StartKind, StreamConfig
from pyrf.dtypes import name_of, slow_on_cpu
from pyrf.models.codecs.codec import Codec
from pyrf.models.text.encoder import TextEncoder
from pyrf.moments import format_time
from pyrf.streaming.adapters import LiveAdapters
from pyrf.streaming.change import Prompt
from pyrf.streaming.chunk import Chunk, Timing
from pyrf.streaming.feeds import AnyFrames
from pyrf.streaming.mix import GivenPrompt, as_json, as_mix, is_one
from pyrf.streaming.model import StreamModel
from pyrf.streaming.prompts import PromptTimes, as_prompts, change_as_json, of_clip
from pyrf.streaming.restyle import DEFAULT_STRENGTH, Source, SourceControl
from pyrf.streaming.start import check_start, start_from
from pyrf.streaming.stream import Stream, as_seeds
from pyrf.streaming.timeline import place, switches_of
from pyrf.threads import fit_threads
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
        model: what its streams share.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: str,
        dtype: torch.dtype,
        device: torch.device,
        exported: str | Path | None = None,
        name: str | None = None,
        student: str | None = None,
        shared_adapters: bool = False,
        adapter_base: str = "device",
    ) -> None:
        self.name = bundle.path.name if name is None else _shareable(name)
        self.student = None if student is None else _shareable(student)
        self.choice = bundle.choice
        if bundle.undistilled:
            warnings.warn(f"{self.name}: {UNDISTILLED}", RuntimeWarning, stacklevel=3)
        if device.type == "cpu":
            fit_threads()
            reason = slow_on_cpu(dtype)
            if reason is not None:
                warnings.warn(
                    f"{name_of(dtype)} is slow on this CPU: {reason}. float32 is faster here",
                    RuntimeWarning,
                    stacklevel=3,
                )
        self.backend = backend
        self.dtype = dtype
        self.device = device
        self.model_config = bundle.model_config
        # The text encoder's activations may leave the range of float16; its rows do not.
        text_dtype = torch.bfloat16 if dtype == torch.float16 else dtype
        text_encoder = bundle.text_encoder(dtype=text_dtype, device=device)
        codec = bundle.codec(dtype=dtype, device=device)
        loaded = load_backend(
            backend,
            bundle,
            codec,
            dtype=dtype,
            device=device,
            exported=exported,
            adapter_base=adapter_base,
        )
        merged = loaded.merged if isinstance(loaded, TorchBackend) else None
        self.model = StreamModel(
            text_encoder,
            codec,
            loaded,
            bundle.stream_config,
            device,
            bundle.height,
            bundle.width,
            bundle.card,
            LiveAdapters(bundle.adapters, merged, shared=shared_adapters),
        )

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
    ) -> Self:
        """Load a model.

        Args:
            name: "tiny" (bundled), a directory in the diffusers layout or in Wan's own, or a hub id.
            student: weights that replace the model's: a file or a hub id.
            revision: of the hub repository.
            backend: who computes: "torch", "onnxruntime" (on a CPU, in float32) or "tensorrt" (on a GPU, in
                bfloat16 or float16).
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

        Raises:
            ValueError: when something is unknown, missing or damaged, when the stream is of other weights, or
                its settings cannot be together.
        """
        check_backend(backend, exported)
        check_adapter_base(adapter_base)
        chosen_dtype, chosen_device = check_dtype(dtype, backend), check_device(device)
        bundle = load_bundle(name, student=student, revision=revision, adapters=adapters, stream=stream)
        return cls(
            bundle,
            backend=backend,
            dtype=chosen_dtype,
            device=chosen_device,
            exported=exported,
            name=name,
            student=student,
            shared_adapters=shared_adapters,
            adapter_base=adapter_base,
        )

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
    ) -> Video | list[Video]:
        """Make a video of `num_frames` frames, or one for each of a list of prompts.

        See `stream` for the other arguments and the errors.
        """
        check_whole("num_frames", num_frames, most=None)
        kind = check_start(self.model, start, image=image is not None, video=video is not None)
        continues = kind == "still"
        later = place(self.model, switches_of(timeline or {}), continues=continues, num_frames=num_frames)
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

        Words that the model has not learned, and a size that it was not trained on, give a `PromptWarning`,
        once per prompt.

        Raises:
            ValueError: when an argument has the wrong kind, size or number, a prompt is empty or too long,
                or two prompts would begin with one chunk.
        """
        height, width = self.check_size(height, width)
        given = start_from(self.model, image, video, height, width, start=start, fit=fit)
        continues = given is not None and given.continues
        placed = place(self.model, switches_of(timeline or {}), continues=continues)
        control = SourceControl(strength, follow_motion)
        stream = Stream(self.model, prompt, seed, height, width, given, placed, control)
        stream.set_source(source if source is None or isinstance(source, Source) else Source(source))
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
        continues = start == "still"
        placed = place(self.model, switches_of(timeline or {}), continues=continues)
        later = {
            format_time(self.model.start_of_chunk(chunk, continues=continues) / self.fps): change_as_json(one)
            for chunk, one in sorted(placed.items())
        }
        made: dict[str, Any] = {
            "prompt": as_json(as_mix(prompt)),
            "seed": seed,
            "model": self.name,
            "pyrf": __version__,
        }
        if later:
            made["timeline"] = later
        if continues:
            made["continues"] = True
        elif start is not None:
            made["start"] = start
        if self.student is not None:
            made["student"] = self.student
        if acting := {name: strength for name, strength in self.adapters.items() if strength}:
            made["adapters"] = acting
        if asked := self.choice.to_dict():
            made["stream"] = asked
        return made

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


def _shareable(name: str) -> str:
    """A model's name for others to read: of a local path the last part."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() else name
