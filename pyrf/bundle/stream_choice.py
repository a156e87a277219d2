"""How a person asks a model to stream: a published student's name, a file, or settings one by one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from pyrf.bundle.json_file import BundleError
from pyrf.checks import check_positive, check_whole
from pyrf.config import MAX_FPS, MIN_FPS, StreamConfig
from pyrf.files import expanded

TRAINED_FRAMES = 21
"""Latent frames (81 frames) that a student without a window saw in training; so many are held for it."""

PRESETS = Path(__file__).with_name("presets.yaml")
MAX_BYTES = 65536
"""Of a file of settings."""

_SHORT = {
    "window": "window_frames",
    "sink": "sink_frames",
    "alpha": "sink_alpha",
    "steps": "denoising_steps",
}
_NAMES = (*(f.name for f in fields(StreamConfig)), "fps")
_LISTS = ("denoising_steps", "first_chunk_steps")
_NONE = ("window_frames", "first_chunk_steps")
"""Settings that may be none."""
_TRAINED = ("chunk_frames", "denoising_steps", "first_chunk_steps", "shift", "sampler", "fps")
"""What weights are trained for. A window and a sink may be others than in training."""


@dataclass(frozen=True)
class StreamChoice:
    """What was asked for.

    Attributes:
        preset: name of a published student.
        own: settings that were given one by one or in a file: fields of `StreamConfig`, and `fps`. They
            count more than the preset's.

    Raises:
        ValueError: when there is no such preset.
    """

    preset: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in presets():
            near = difflib.get_close_matches(self.preset, presets(), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(
                f"no stream {self.preset!r}; {hint}There are {', '.join(presets())}; "
                "or give a .yaml file, or KEY=VALUE"
            )

    @property
    def values(self) -> dict[str, Any]:
        """All settings that were asked for."""
        return {**self._preset_values, **self.own}

    @property
    def _preset_values(self) -> dict[str, Any]:
        if self.preset is None:
            return {}
        return {name: value for name, value in presets()[self.preset].items() if name != "models"}

    @property
    def fps(self) -> float | None:
        """Frames per second that were asked for."""
        return self.values.get("fps")

    def applied(self, stream: StreamConfig) -> StreamConfig:
        """A model's way to stream, changed as asked for.

        Raises:
            ValueError: when these cannot be together.
        """
        values = {name: value for name, value in self.values.items() if name != "fps"}
        if "window_frames" in values and values["window_frames"] is None:
            values["window_frames"] = whole_window(values.get("chunk_frames", stream.chunk_frames))
        return replace(stream, **values)

    def check(self, model: str | None, trained: Mapping[str, Any], source: Path) -> None:
        """Refuse a preset that is of other weights; what was given one by one is the person's own word.

        Args:
            model: name of the network, where it is a published one.
            trained: what files say of how the weights stream: fields of `StreamConfig`, and `fps`.
            source: of the weights.

        Raises:
            BundleError: saying what differs.
        """
        if self.preset is None:
            return
        models = presets()[self.preset]["models"]
        if model is not None and model not in models:
            raise BundleError(
                f"{source}: stream {self.preset} is of {' or '.join(models)}, and this is {model}; give that "
                "model, or the settings themselves: a file, or KEY=VALUE"
            )
        preset = self._preset_values
        for name in _TRAINED:
            if name in trained and name not in self.own and trained[name] != preset[name]:
                raise BundleError(
                    f"{source}: says {name} {_shown(trained[name])}, and stream {self.preset} has "
                    f"{_shown(preset[name])}; leave the name out, or give the weights of {self.preset}"
                )

    def to_dict(self) -> dict[str, Any]:
        """For a file that says how a video was made: JSON."""
        named = {} if self.preset is None else {"preset": self.preset}
        return named | {n: list(v) if isinstance(v, tuple) else v for n, v in self.own.items()}


StreamAsked: TypeAlias = StreamChoice | StreamConfig | str | Mapping[str, Any] | Sequence[Any]
"""A preset's name, the path of a .yaml file, "key=value", a mapping, or several of them in order."""


def stream_choice(asked: StreamAsked) -> StreamChoice:
    """Read what was asked for; later settings replace earlier ones.

    Raises:
        ValueError: when a preset, a file or a setting is unknown, or a setting cannot have its value.
    """
    if isinstance(asked, StreamChoice):
        return asked
    if isinstance(asked, StreamConfig):
        return StreamChoice(own=asdict(asked))
    parts = [asked] if isinstance(asked, str | Mapping) else asked
    if not isinstance(parts, Sequence):
        raise ValueError(
            f"stream must be a name, a file, settings, or a list of them, got {type(asked).__name__}"
        )
    preset: str | None = None
    own: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, Mapping):
            own |= _settings(part, "stream")
        elif not isinstance(part, str):
            raise ValueError(f"each of stream must be a string or a mapping, got {type(part).__name__}")
        elif part.endswith((".yaml", ".yml")):
            path = Path(expanded(part))
            own |= _settings(_read(path), str(path))
        elif "=" in part:
            key, _, value = part.partition("=")
            own |= _settings({key.strip(): value}, "stream")
        elif preset is not None and part != preset:
            raise ValueError(f"stream has two names, {preset} and {part}; give one")
        else:
            preset = part
    return StreamChoice(preset, own)


def whole_window(chunk_frames: int) -> int:
    """The window of a student that was trained without one: what it saw then, in whole chunks.

    Raises:
        ValueError: when a chunk has no such length.
    """
    check_whole("chunk_frames", chunk_frames)
    return -(-TRAINED_FRAMES // chunk_frames) * chunk_frames


@cache
def presets() -> dict[str, dict[str, Any]]:
    """The settings of every published student: fields of `StreamConfig`, `fps`, and `models`."""
    found = {}
    for name, values in _read(PRESETS).items():
        models = values.pop("models")
        found[name] = {**_settings(values, f"{PRESETS}: {name}"), "models": models}
    return found


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: too large for settings of a stream")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no text; give a file of YAML") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(
            f"{path}: no YAML: {getattr(error, 'problem', None) or 'unreadable'}{where}"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: must hold settings, such as chunk_frames: 3, found {type(values).__name__}"
        )
    return values


def _settings(given: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Settings under their whole names, each of a kind that it can have."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = _SHORT.get(key, key)
        if name not in _NAMES:
            known = (*_NAMES, *_SHORT)
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{where}: no setting {key!r}; {hint}")
        if name in found:
            raise ValueError(f"{where}: {name} is there twice")
        if isinstance(value, str):  # PyYAML leaves 1e-06 one, too
            value = None if value.strip() == "none" else _parsed(value)
        if value is None and name not in _NONE:
            raise ValueError(f"{where}: {key} must have a value")
        if name in _LISTS and value is not None:
            value = tuple(value) if isinstance(value, list | tuple) else (value,)
        if name == "fps":
            check_positive("fps", value)
            if not MIN_FPS <= value <= MAX_FPS:
                raise ValueError(f"{where}: fps must lie in {MIN_FPS:g}..{MAX_FPS:g}, got {value}")
        found[name] = value
    return found


def _parsed(text: str) -> Any:
    """What a text stands for: a number, several of them with commas, or a word."""
    if "," in text:
        return [_parsed(part) for part in text.split(",")]
    text = text.strip()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
