"""`pyrf generate`: a video from a prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf import printing
from pyrf.bundle.adapter_file import parse_adapter
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.batch import check_folder, make_batch
from pyrf.commands.expansion import ExpandModelOption, ExpandOption, check_expand, tell_expanded
from pyrf.commands.filling import fill
from pyrf.commands.loading import MaxMemoryOption, load_pipeline
from pyrf.commands.notices import tell_notices
from pyrf.commands.options import (
    DEFAULT_MODEL,
    BackendOption,
    DecoderRankOption,
    DeviceOption,
    DtypeOption,
    ExportedOption,
    GpusOption,
    HeightOption,
    LoraOption,
    ModelOption,
    PrecisionOption,
    StreamOption,
    StudentOption,
    ThreadsOption,
    WidthOption,
    check_seconds,
    ranks_of_stream,
    seconds_option,
)
from pyrf.commands.outputs import (
    BitrateOption,
    CrfOption,
    EncoderOption,
    Output,
    OutputOption,
    RawOption,
    SignDetailsOption,
    SignOption,
    WatermarkOption,
    opened,
    signer_of,
    watermark_of,
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
from pyrf.commands.story import DEFAULT_SECONDS, Story, check_places, times_of, told
from pyrf.config import Fit, StartKind
from pyrf.stops import Stopped
from pyrf.streaming.change import Change
from pyrf.streaming.mix import texts_of
from pyrf.streaming.prompts import as_prompts
from pyrf.streaming.timeline import place

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline
    from pyrf.video.writer import Frames


def generate(
    output: OutputOption,
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
    image_fit: Annotated[Fit, typer.Option(help="What becomes of an image of another size.")] = "crop",
    model: ModelOption = DEFAULT_MODEL,
    student: StudentOption = None,
    lora: LoraOption = None,
    stream: StreamOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    dtype: DtypeOption = "float32",
    precision: PrecisionOption = None,
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    exported: ExportedOption = None,
    gpus_per_stream: GpusOption = None,
    decoder_rank: DecoderRankOption = None,
    max_memory: MaxMemoryOption = None,
    source: SourceOption = None,
    strength: StrengthOption = None,
    follow_motion: FollowMotionOption = False,
    source_end: SourceEndOption = "stop",
    expand: ExpandOption = None,
    expand_model: ExpandModelOption = "default",
    keep_partial: Annotated[
        bool, typer.Option("--keep-partial", help="When stopped, keep the frames that are there.")
    ] = False,
    raw: RawOption = False,
    crf: CrfOption = None,
    bitrate: BitrateOption = None,
    encoder: EncoderOption = "auto",
    watermark: WatermarkOption = None,
    sign: SignOption = None,
    sign_details: SignDetailsOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Make a video from a prompt. `pyrf words` lists the words that a model knows."""
    adapters, choice = [parse_adapter(text) for text in lora or ()], stream_choice(stream or ())
    ranks = ranks_of_stream(gpus_per_stream)
    check_expand(expand, expand_model)
    check_source(source, strength, follow_motion=follow_motion, source_end=source_end, image=image)

    def load() -> StreamingPipeline:
        return load_pipeline(
            model,
            threads=threads,
            student=student,
            backend=backend,
            dtype=dtype,
            precision=precision,
            device=device,
            stream=choice,
            exported=exported,
            adapters=adapters,
            gpus_per_stream=ranks,
            decoder_rank=decoder_rank,
            max_memory=max_memory,
        )

    if prompts is not None:
        if (
            any(value is not None for value in (prompt, script, at, over, image, start, source, expand, sign))
            or keep_partial
            or (raw, crf, bitrate, encoder) != (False, None, None, "auto")
        ):
            others = (
                "PROMPT, --script, --at, --over, --image, --start, --source, --expand, --keep-partial, "
                "--raw, --crf, --bitrate, --encoder and --sign"
            )
            raise ValueError(f"--prompts has the prompts of a batch; leave out {others}")
        length = DEFAULT_SECONDS if seconds is None else seconds
        check_seconds(length)
        jobs, folder = read_jobs(prompts, seed or 0), check_folder(output)
        mark = watermark_of(watermark)
        make_batch(load(), jobs, folder, length, (height, width), mark)
        return
    story = told(prompt, at, over, script, seed, seconds)
    if story.switches and (image is None or start is not None):  # else the file and the backend decide
        check_places(story, times_of(model), continues=start == "still")
    signer = signer_of(sign, output, (image, source), details=sign_details)
    with opened(output, raw, crf, bitrate, encoder, watermark, signer) as video:
        began = time.perf_counter()
        pipe = load()
        from pyrf.streaming.notices import told_elsewhere
        from pyrf.streaming.restyle import DEFAULT_STRENGTH

        opening = _read_opening(pipe, image, start, height, width, image_fit)
        if expand is not None:
            story = tell_expanded(story, expand, expand_model, pipe.vocabulary)
        num_frames = max(1, round(story.seconds * pipe.fps))
        timeline = place(pipe.model, story.switches, continues=opening.kind == "still", num_frames=num_frames)
        load_s = time.perf_counter() - began
        tell_notices(pipe, _texts(story, timeline), height, width)

        began = time.perf_counter()
        with told_elsewhere():
            begun = pipe.stream(
                story.prompt,
                seed=story.seed,
                height=height,
                width=width,
                image=opening.image,
                video=opening.video,
                timeline=timeline,
                start=start,
                source=None if source is None else open_source(pipe, source, source_end, height, width),
                strength=DEFAULT_STRENGTH if strength is None else strength,
                follow_motion=follow_motion,
            )
        metadata = pipe.metadata(story.prompt, story.seed, timeline, opening.kind)
        writer = video.open(pipe.fps, metadata, keep_partial)
        try:
            first_s = fill(writer, begun, num_frames, began)
        except Stopped as stopped:
            _note_stop(stopped, video, writer.num_frames, num_frames, keep_partial)
            raise
        total_s = time.perf_counter() - began
        done = writer.num_frames
        made = f"{printing.counted(done, 'frame')}, {done / pipe.fps:.2f} s of video"
        printing.say(
            f"{video.shown}: {made}; "
            f"{done / total_s:.1f} FPS end to end, first frame {1e3 * first_s:.0f} ms after load, "
            f"load {load_s:.2f} s"
        )


@dataclass(frozen=True)
class _Opening:
    """What a video begins with.

    Attributes:
        image: a frame to start from, [H, W, 3].
        video: frames to continue, [T, H, W, 3].
        kind: how an image begins it; "still" for a video that it continues.
    """

    image: Frames | None
    video: Frames | None
    kind: StartKind | None


def _read_opening(
    pipe: StreamingPipeline,
    path: str | None,
    start: StartKind | None,
    height: int | None,
    width: int | None,
    fit: Fit,
) -> _Opening:
    """What `--image` names, in the size and rate of the stream: no more than its window holds."""
    from pyrf.streaming.start import check_start
    from pyrf.video.reader import read_frames

    image = video = None
    if path is not None:
        height, width = pipe.check_size(height, width)
        limit = pipe.num_frames_of(pipe.stream_config.slots)
        frames = read_frames(path, height=height, width=width, fps=pipe.fps, limit=limit, fit=fit)
        image, video = (frames[0], None) if len(frames) == 1 else (None, frames)
    kind = check_start(pipe.model, start, image=image is not None, video=video is not None)
    return _Opening(image, video, kind)


def _texts(story: Story, timeline: Mapping[int, Change]) -> list[str]:
    """Every text that a video will show."""
    prompts = [story.prompt, *(change.prompt for change in timeline.values() if change.prompt is not None)]
    return [text for prompt in prompts for clip in as_prompts(prompt) for text in texts_of(clip)]


def _note_stop(stopped: Stopped, video: Output, done: int, num_frames: int, keep_partial: bool) -> None:
    """Say how far a video had come when it was stopped, and what becomes of it."""
    so_far = f"after {done} of {printing.counted(num_frames, 'frame')}"
    if done == num_frames:
        stopped.add_note(f"when {video.shown} was whole")
    elif video.is_live:
        stopped.add_note(so_far)
    elif not keep_partial:
        stopped.add_note(f"{so_far}; --keep-partial would keep them")
