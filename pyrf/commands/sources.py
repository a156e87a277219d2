"""Options for live video in, which `pyrf generate` takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline
    from pyrf.streaming.restyle import Source
    from pyrf.video.writer import Frames

CAMERA = "camera"
STDIN = "-"

SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="Restyle a video: a file, camera[:DEVICE], or - (a container from stdin).",
        metavar="FILE|camera|-",
    ),
]
StrengthOption = Annotated[
    float | None,
    typer.Option(help="How far the prompt changes the source, 0..1; by default .6.", metavar="0..1"),
]
FollowMotionOption = Annotated[
    bool, typer.Option("--follow-motion", help="Lower the strength where the source moves.")
]
SourceEndOption = Annotated[
    str, typer.Option("--source-end", help="After the source: stop, or text (go on from the prompt alone).")
]


def check_source(
    source: str | None, strength: float | None, *, follow_motion: bool, source_end: str, image: str | None
) -> None:
    """Refuse options that do not fit together, before a model is loaded.

    Raises:
        ValueError: naming the option.
    """
    if source is None:
        for option, given in (
            ("--strength", strength is not None),
            ("--follow-motion", follow_motion),
            ("--source-end", source_end != "stop"),
        ):
            if given:
                raise ValueError(f"{option} is for live video in; give --source too")
        return
    if strength is not None and not 0 <= strength <= 1:
        raise ValueError(f"--strength must lie in 0..1, got {strength:g}")
    if source_end not in ("stop", "text"):
        raise ValueError(f"--source-end must be stop or text, got {source_end!r}")
    if image is not None:
        raise ValueError("give --image to continue from it, or --source to restyle it, not both")
    if not (source == STDIN or _is_camera(source)):
        from pyrf.video.reader import existing

        existing(source)


def open_source(
    pipe: StreamingPipeline, source: str, source_end: str, height: int | None, width: int | None
) -> Source:
    """What `--source` names, for `StreamingPipeline.stream`."""
    from pyrf.streaming.restyle import Source
    from pyrf.video.live import iter_camera, iter_frames, iter_pipe

    height, width = pipe.check_size(height, width)
    frames: Iterator[Frames]
    if _is_camera(source):
        frames = iter_camera(source.partition(":")[2] or None)
    elif source == STDIN:
        frames = iter_pipe(sys.stdin.buffer, height=height, width=width, fps=pipe.fps)
    else:
        frames = iter_frames(source, height=height, width=width, fps=pipe.fps)
    return Source(frames, live=_is_camera(source), at_end="text" if source_end == "text" else "stop")


def _is_camera(source: str) -> bool:
    return source.partition(":")[0] == CAMERA
