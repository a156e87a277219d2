"""Who makes the videos: a pipeline, or any command."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pyrf.export.manifest import file_entry

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline


class Form(NamedTuple):
    """What every video of a run is: frames, pixels, frames per second."""

    num_frames: int = 81
    height: int = 480
    width: int = 832
    fps: int = 16


class Maker(Protocol):
    """Makes videos.

    Attributes:
        about: what they are made with, for the manifest.
    """

    @property
    def about(self) -> Mapping[str, str]: ...

    def make(self, text: str, seed: int, form: Form, path: Path) -> None:
        """Write a video at a path that ends in .mp4."""
        ...


class PipelineMaker:
    """Makes videos with a model.

    Raises:
        ValueError: when the model has another rate than `form`, or refuses its size.
    """

    def __init__(self, pipe: StreamingPipeline, weights: str, form: Form) -> None:
        pipe.check_size(form.height, form.width)
        if pipe.fps != form.fps:
            raise ValueError(f"{pipe.name} makes {pipe.fps:g} frames per second, the videos have {form.fps}")
        self._pipe = pipe
        self.about = {
            "model": pipe.name,
            "student": pipe.student or "",
            "weights": weights,
            "stream": repr(pipe.choice.to_dict()),
            "backend": pipe.backend,
            "dtype": str(pipe.dtype),
            "device": pipe.device.type,
        }

    def make(self, text: str, seed: int, form: Form, path: Path) -> None:
        """See `Maker`."""
        from pyrf.streaming.notices import told_elsewhere

        with told_elsewhere():
            video = self._pipe(text, form.num_frames, seed, height=form.height, width=form.width)
        video.save(path)


FIELDS = ("prompt", "seed", "output", "frames", "height", "width", "fps")


class CommandMaker:
    """Makes videos with a command, which is run once per video and without a shell.

    Args:
        command: a line in which the FIELDS are filled in: {prompt}, {seed}, {output} and so on.
        files: that decide what it makes, such as weights; the manifest has their hashes.

    Raises:
        ValueError: when the line is no command, has another name in braces, or no prompt, seed or output.
        OSError: when a file cannot be read.
    """

    def __init__(self, command: str, files: Sequence[Path] = ()) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"--command {command}: {error}") from error
        named = {name for word in self._words for name in re.findall(r"\{(\w+)\}", word)}
        if unknown := sorted(named - set(FIELDS)):
            raise ValueError(f"--command: no field {unknown[0]!r}; there are {', '.join(FIELDS)}")
        for field in ("prompt", "seed", "output"):
            if field not in named:
                raise ValueError(f"--command: it must have {{{field}}}, or its videos cannot be told apart")
        digest = hashlib.sha256()
        for path in files:
            digest.update(f"{path.name} {file_entry(path)[1]}\n".encode())
        self.about = {"command": command, "weights": digest.hexdigest() if files else "not given"}

    def make(self, text: str, seed: int, form: Form, path: Path) -> None:
        """See `Maker`.

        Raises:
            ValueError: when the command fails, with the end of what it said.
            OSError: when there is no such program.
        """
        values = {"prompt": text, "seed": seed, "output": path, "frames": form.num_frames, **form._asdict()}

        def filled(word: str) -> str:
            return re.sub(r"\{(\w+)\}", lambda found: str(values[found[1]]), word)

        words = [filled(word) for word in self._words]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-400:]
            raise ValueError(f"the command ended with code {done.returncode}: {said}")
