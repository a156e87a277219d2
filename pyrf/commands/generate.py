"""`pyrf generate`: a video from a prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from pyrf import printing
from pyrf.bundle.adapter_file import parse_adapter
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.batch import check_folder, make_batch
from pyrf.commands.filling import fill
from pyrf.commands.options import (
    DEFAULT_MODEL,
    BackendOption,
    DeviceOption,
    DtypeOption,
    ExportedOption,
    HeightOption,
    LoraOption,
    ModelOption,
    StreamOption,
    StudentOption,
    ThreadsOption,
    WidthOption,
    check_seconds,
    seconds_option,
    use_threads,
)
from pyrf.commands.prompt_list import read_jobs
from pyrf.commands.sources import (
    FollowMotionOption,
    SourceEndOption,
    SourceOption,
    StrengthOption,
    check_source,
    open_source,
)
from pyrf.commands.story import DEFAULT_SECONDS, check_places, times_of, told
from pyrf.config import Fit, StartKind
from pyrf.stops import Stopped
from pyrf.streaming.mix import texts_of
from pyrf.streaming.prompts import as_prompts
from pyrf.streaming.timeline import place

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline
    from pyrf.video.writer import Frames


STDOUT = "-"


def generate(
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="x.mp4, x.gif, x.webp, x.png (contact sheet), x/ (a folder of PNGs), or - (stdout).",
        ),
    ],
    prompt: Annotated[str | None, typer.Argument(help="What to show.")] = None,
    script: Annotated[
        str | None, typer.Option(help="Show a story, a YAML file; see pyrf script check.", metavar="FILE")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Make an MP4 of each prompt of a .txt, .jsonl or .csv file, in the folder -o; what is "
            "there already is not made again.",
            metavar="FILE",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        seconds_option("Length of the video: seconds, or [hh:]mm:ss; by default the story's, else 5."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed and prompts give the same frames; by default the story's, else 0."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="Switch the prompt where the next chunk starts; may be repeated; times as for --seconds.",
            metavar="TIME:PROMPT",
        ),
    ] = None,
    over: Annotated[
        float | None, typer.Option(help="Seconds in which a prompt of --at takes the place of the last one.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Start from this image, or continue the end of this video.")
    ] = None,
    start: Annotated[
        StartKind | None,
        typer.Option(
            help="How an image begins the video; by default first_frame, or still for exported graphs."
        ),
    ] = None,
    fit: Annotated[Fit, typer.Option(help="What becomes of an image of another size.")] = "crop",
    model: ModelOption = DEFAULT_MODEL,
    student: StudentOption = None,
    lora: LoraOption = None,
    stream: StreamOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    exported: ExportedOption = None,
    source: SourceOption = None,
    strength: StrengthOption = None,
    follow_motion: FollowMotionOption = False,
    source_end: SourceEndOption = "stop",
    keep_partial: Annotated[
        bool, typer.Option("--keep-partial", help="When stopped, keep the frames that are there.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Make a video from a prompt. `pyrf words` lists the words that a model knows."""
    adapters, choice = [parse_adapter(text) for text in lora or ()], stream_choice(stream or ())
    check_source(source, strength, follow_motion=follow_motion, source_end=source_end, image=image)

    def load() -> StreamingPipeline:
        use_threads(threads)
        from pyrf.pipeline import StreamingPipeline

        return StreamingPipeline.from_pretrained(
            model,
            student=student,
            backend=backend,
            dtype=dtype,
            device=device,
            stream=choice,
            exported=exported,
            adapters=adapters,
        )

    if prompts is not None:
        if (
            any(value is not None for value in (prompt, script, at, over, image, start, source))
            or keep_partial
        ):
            others = "PROMPT, --script, --at, --over, --image, --start, --source and --keep-partial"
            raise ValueError(f"--prompts has the prompts of a batch; leave out {others}")
        length = DEFAULT_SECONDS if seconds is None else seconds
        check_seconds(length)
        jobs, folder = read_jobs(prompts, seed or 0), check_folder(output)
        make_batch(load(), jobs, folder, length, (height, width))
        return
    story = told(prompt, at, over, script, seed, seconds)
    if story.switches and (image is None or start is not None):  # else the file and the backend decide
        check_places(story, times_of(model), continues=start == "still")
    shown = "stdout" if output == STDOUT else output
    with _target(output) as target:
        began = time.perf_counter()
        pipe = load()
        from pyrf.streaming.notices import told_elsewhere
        from pyrf.streaming.restyle import DEFAULT_STRENGTH
        from pyrf.streaming.start import check_start
        from pyrf.video.files import open_writer

        num_frames = max(1, round(story.seconds * pipe.fps))
        opening = None if image is None else _read_opening(pipe, image, height, width, fit)
        shows_image = opening is not None and len(opening) == 1
        shows_video = opening is not None and not shows_image
        kind = check_start(pipe.model, start, image=shows_image, video=shows_video)
        timeline = place(pipe.model, story.switches, continues=kind == "still", num_frames=num_frames)
        load_s = time.perf_counter() - began
        later = [change.prompt for change in timeline.values() if change.prompt is not None]
        texts = [
            text for one in (story.prompt, *later) for clip in as_prompts(one) for text in texts_of(clip)
        ]
        for notice in pipe.model.notices(*texts, height=height, width=width):
            printing.tell(f"warning: {notice}; see pyrf words")

        began = time.perf_counter()
        with told_elsewhere():
            begun = pipe.stream(
                story.prompt,
                seed=story.seed,
                height=height,
                width=width,
                image=opening[0] if opening is not None and shows_image else None,
                video=opening if shows_video else None,
                timeline=timeline,
                start=start,
                source=None if source is None else open_source(pipe, source, source_end, height, width),
                strength=DEFAULT_STRENGTH if strength is None else strength,
                follow_motion=follow_motion,
            )
        metadata = pipe.metadata(story.prompt, story.seed, timeline, kind)
        writer = open_writer(target, pipe.fps, metadata=metadata, keep_partial=keep_partial)
        try:
            first_s = fill(writer, begun, num_frames, began)
        except Stopped as stopped:
            so_far = f"after {writer.num_frames} of {printing.counted(num_frames, 'frame')}"
            if writer.num_frames == num_frames:
                stopped.add_note(f"when {shown} was whole")
            elif output == STDOUT:
                stopped.add_note(so_far)
            elif not keep_partial:
                stopped.add_note(f"{so_far}; --keep-partial would keep them")
            raise
        total_s = time.perf_counter() - began
        num_frames = writer.num_frames
        made = f"{printing.counted(num_frames, 'frame')}, {num_frames / pipe.fps:.2f} s of video"
        printing.say(
            f"{shown}: {made}; "
            f"{num_frames / total_s:.1f} FPS end to end, first frame {1e3 * first_s:.0f} ms after load, "
            f"load {load_s:.2f} s"
        )


@contextmanager
def _target(output: str) -> Iterator[str | BinaryIO]:
    """Where the video goes, looked at before the model is loaded.

    Raises:
        ValueError: when it cannot be written.
    """
    if output == STDOUT:
        with printing.claimed_stdout() as binary:
            yield binary
        return
    from pyrf.video.files import check_output

    check_output(output)
    yield output


def _read_opening(
    pipe: StreamingPipeline, path: str, height: int | None, width: int | None, fit: Fit
) -> Frames:
    """The frames to continue from, in the size and rate of the stream: no more than its window holds."""
    from pyrf.video.reader import read_frames

    height, width = pipe.check_size(height, width)
    limit = pipe.num_frames_of(pipe.stream_config.slots)
    return read_frames(path, height=height, width=width, fps=pipe.fps, limit=limit, fit=fit)
