"""`pyrf generate --prompts`: a video of each prompt of a file, in a folder, that goes on where it stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyrf import printing
from pyrf.commands.filling import fill
from pyrf.commands.notices import tell_notices
from pyrf.commands.options import check_named
from pyrf.commands.prompt_list import Job
from pyrf.files import expanded
from pyrf.streaming.mix import texts_of

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline
    from pyrf.video.watermark import Watermark


def check_folder(output: str) -> Path:
    """The folder of a batch, which there may be already.

    Raises:
        ValueError: when it is no name of a folder.
    """
    check_named("--output", output)
    folder = Path(expanded(output))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output {output} is a file; with --prompts give a folder for the videos")
    return folder


def make_batch(
    pipe: StreamingPipeline,
    jobs: list[Job],
    folder: Path,
    seconds: float,
    size: tuple[int | None, int | None],
    watermark: Watermark | None = None,
) -> None:
    """Make the videos of a batch that are not there yet, one after another.

    Each has the bytes that its prompt and seed have alone, and its name only when it is whole.

    Args:
        size: height and width in pixels; None for the model's.
        watermark: what their frames show.

    Raises:
        ValueError: before the first is made, when a prompt is too long, or a file has a video's name and was
            not made from its prompt, seed, model, length and size.
    """
    from pyrf.streaming.notices import told_elsewhere
    from pyrf.video.files import open_writer

    height, width = pipe.check_size(*size)
    num_frames = max(1, round(seconds * pipe.fps))
    for job in jobs:
        for text in texts_of(job.prompt):
            try:
                pipe.check_prompt(text)
            except ValueError as error:
                raise ValueError(f"{job.name}: {error}") from None
    missing = [
        job
        for job in jobs
        if not _is_there(pipe, folder / job.name, job, num_frames, (height, width), watermark)
    ]
    tell_notices(pipe, (text for job in missing for text in texts_of(job.prompt)), height, width)
    folder.mkdir(parents=True, exist_ok=True)
    there = len(jobs) - len(missing)
    if there:
        printing.tell(f"{printing.counted(there, 'video')} of {len(jobs)} there already")
    for number, job in enumerate(missing, there + 1):
        printing.tell(f"video {number} of {len(jobs)}: {job.name}")
        with told_elsewhere():
            stream = pipe.stream(job.prompt, job.seed, height=height, width=width)
        metadata = pipe.metadata(job.prompt, job.seed)
        writer = open_writer(str(folder / job.name), pipe.fps, metadata=metadata, watermark=watermark)
        try:
            fill(writer, stream, num_frames, time.perf_counter())
        except BaseException as error:
            error.add_note(f"at video {number} of {len(jobs)}; the same command goes on from there")
            raise
    printing.say(
        f"{folder}: {printing.counted(len(jobs), 'video')} of {seconds:g} s, {len(missing)} of them made now"
    )


def _is_there(
    pipe: StreamingPipeline,
    path: Path,
    job: Job,
    num_frames: int,
    size: tuple[int, int],
    watermark: Watermark | None,
) -> bool:
    """Whether a job's video is there, made from what the job asks for.

    Raises:
        ValueError: when something else has its name.
    """
    import av

    if not path.exists():
        return False
    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            made = json.loads(container.metadata.get("comment", "{}"))
            found = (video.frames, video.height, video.width)
    except (av.FFmpegError, OSError, ValueError, IndexError):
        raise ValueError(f"{path} is there, and is no video of pyrf's; move it away") from None
    wanted = pipe.metadata(job.prompt, job.seed)
    if watermark is not None:
        wanted = watermark.told_in(wanted)
    keys = [key for key in sorted({*made, *wanted}) if key != "pyrf"]
    for key in keys:
        if made.get(key) != wanted.get(key):
            raise ValueError(
                f"{path} is there, made with {key} {made.get(key)!r:.80}, not {wanted.get(key)!r:.80}; "
                "move it away, or give another folder"
            )
    if found != (num_frames, *size):
        raise ValueError(
            f"{path} is there with {found[0]} frames of {found[1]} x {found[2]}, not {num_frames} of "
            f"{size[0]} x {size[1]}; move it away, or give another folder"
        )
    return True
