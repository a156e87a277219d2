"""`pyrf eval vbench` and `pyrf eval vbench-long`: videos, scores by VBench's own code, totals."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf import printing
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.options import (
    DEFAULT_MODEL,
    BackendOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    StreamOption,
    StudentOption,
    check_named,
)
from pyrf.files import expanded

if TYPE_CHECKING:
    from pyrf.evaluation.vbench.makers import Form, Maker

short = typer.Typer(add_completion=False, help="VBench as it is published: sample, score, total.")
long = typer.Typer(add_completion=False, help="VBench-Long of 60 s videos, and drift: sample, score, total.")

PromptsOption = Annotated[
    Path, typer.Option("--prompts", help="VBench_full_info.json, or a file with a text per line.")
]
ExtendedOption = Annotated[
    Path | None,
    typer.Option("--extended", help="A text per line in the same order, to make the videos from."),
]
OutOption = Annotated[
    Path, typer.Option(help="Folder of videos/ and the manifest; the same command goes on.")
]
ShardOption = Annotated[str, typer.Option("--shard", help="This part of the videos, as 2/8.", metavar="K/N")]
CommandOption = Annotated[
    str | None,
    typer.Option(
        "--command",
        help="Make videos with this in place of a model; {prompt}, {seed}, {output}, {frames}, {height}, "
        "{width} and {fps} are filled in.",
    ),
]
FileOption = Annotated[
    list[Path] | None, typer.Option("--file", help="With --command: weights to hash; may be repeated.")
]
SizeHelp = "Of a video, in pixels; 480 x 832 is what was published."
VideosArgument = Annotated[Path, typer.Argument(help="Folder of .mp4 files, such as OUT/videos.")]
PythonOption = Annotated[
    Path, typer.Option("--python", help="The Python of an environment in which vbench is installed.")
]
InfoOption = Annotated[Path, typer.Option("--info", help="VBench_full_info.json.")]
ScoresOption = Annotated[Path, typer.Option("--out", help="Folder of the results, one file per dimension.")]
DimensionOption = Annotated[
    list[str] | None, typer.Option("--dimension", help="Only this one; may be repeated. By default all.")
]
ResultsArgument = Annotated[list[Path], typer.Argument(help="VBench's result files, or folders of them.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _add_sample(app: typer.Typer, help: str, *, samples: int, frames: int, is_long: bool) -> None:
    """Give an application its command `sample`; the two differ in defaults alone."""

    @app.command("sample", help=help)
    def sample(
        prompts: PromptsOption,
        out: OutOption,
        extended: ExtendedOption = None,
        shard: ShardOption = "1/1",
        samples: Annotated[int, typer.Option(help="Videos of each prompt.")] = samples,
        seed: Annotated[int, typer.Option(help="Of a prompt's first video; it counts up.")] = 0,
        frames: Annotated[int, typer.Option(help="Of a video; 960 are 60 s.")] = frames,
        height: Annotated[int, typer.Option(help=SizeHelp)] = 480,
        width: Annotated[int, typer.Option(help=SizeHelp)] = 832,
        command: CommandOption = None,
        file: FileOption = None,
        model: ModelOption = DEFAULT_MODEL,
        student: StudentOption = None,
        stream: StreamOption = None,
        dtype: DtypeOption = "float32",
        device: DeviceOption = "cpu",
        backend: BackendOption = "torch",
    ) -> None:
        from pyrf.evaluation.vbench.makers import Form

        form = Form(frames, height, width)
        maker = _maker(form, command, file, model, student, stream, dtype, device, backend)
        _sample(maker, form, prompts, extended, out, shard, samples, seed, is_long=is_long)


_add_sample(
    short,
    "Make the videos of VBench's prompts, named {prompt}-{i}.mp4.",
    samples=5,
    frames=81,
    is_long=False,
)
_add_sample(long, "Make a video of 60 s of each prompt.", samples=1, frames=960, is_long=True)


@short.command("score")
def score_short(
    videos: VideosArgument,
    out: ScoresOption,
    python: PythonOption,
    info: InfoOption,
    dimension: DimensionOption = None,
    device: DeviceOption = "cuda",
) -> None:
    """Score the videos by VBench's own code; what is scored already is kept."""
    from pyrf.evaluation.vbench.score import check_complete, score
    from pyrf.evaluation.vbench.totals import DIMENSIONS

    chosen = _dimensions(dimension, DIMENSIONS)
    videos, info = Path(expanded(videos)), Path(expanded(info))
    check_complete(videos, info, chosen)
    score(videos, Path(expanded(out)), chosen, python=Path(expanded(python)), info=info, device=device)
    printing.say(f"scored in {out}; pyrf eval vbench total {out}")


@long.command("score")
def score_long(
    videos: VideosArgument,
    out: ScoresOption,
    python: PythonOption,
    info: InfoOption,
    dimension: DimensionOption = None,
    device: DeviceOption = "cuda",
) -> None:
    """Cut the videos into clips of 2 s, and score these by VBench's own code."""
    from pyrf.evaluation.vbench.clips import cut
    from pyrf.evaluation.vbench.score import score
    from pyrf.evaluation.vbench.totals import LONG

    chosen = _dimensions(dimension, LONG)
    videos, out = Path(expanded(videos)), Path(expanded(out))
    found = sorted(videos.glob("*.mp4"))
    if not found:
        raise ValueError(f"{videos} holds no .mp4 files")
    printing.tell(printing.counted(cut(found, out / "clips"), "clip"))
    score(
        out / "clips",
        out,
        chosen,
        python=Path(expanded(python)),
        info=Path(expanded(info)),
        device=device,
        mode="custom_input",
    )
    printing.say(f"scored in {out}; pyrf eval vbench-long total {out}")


@short.command("total")
def total_short(results: ResultsArgument, as_json: JsonOption = False) -> None:
    """Normalise and weigh the scores, beside published rows."""
    from pyrf.evaluation.vbench.results import read_results
    from pyrf.evaluation.vbench.table import table
    from pyrf.evaluation.vbench.totals import totals

    found = read_results(Path(expanded(path)) for path in results)
    scores = {name: result.score for name, result in found.items()}
    ours = totals(scores)
    told = {"scores": scores, "totals": dict(ours.values), "missing": ours.missing}
    printing.deliver(json.dumps(told) if as_json else table(scores, ours))


@long.command("total")
def total_long(results: ResultsArgument, as_json: JsonOption = False) -> None:
    """Normalise and weigh the scores of clips, and their drift in both definitions."""
    from pyrf.evaluation.vbench.clips import drift, long_scores
    from pyrf.evaluation.vbench.results import PERCENT, read_results
    from pyrf.evaluation.vbench.table import table
    from pyrf.evaluation.vbench.totals import long_totals

    found = read_results(Path(expanded(path)) for path in results)
    scores = long_scores(found)
    ours = long_totals(scores)
    drifts = drift(found[PERCENT]) if PERCENT in found else None
    told = {
        "scores": scores,
        "totals": dict(ours.values),
        "missing": ours.missing,
        "drift": drifts and drifts._asdict(),
    }
    printing.deliver(json.dumps(told) if as_json else table(scores, ours, drifts, long=True))


def _sample(
    maker: Maker,
    form: Form,
    prompts: Path,
    extended: Path | None,
    out: Path,
    shard: str,
    samples: int,
    seed: int,
    *,
    is_long: bool,
) -> None:
    check_named("--out", out)
    from pyrf.evaluation.vbench.prompts import read_prompts
    from pyrf.evaluation.vbench.sample import Shard, jobs, manifest, sample

    part = Shard.parse(shard)
    out = Path(expanded(out))
    files = {"original": Path(expanded(prompts))}
    if extended is not None:
        files["extended"] = Path(expanded(extended))
    texts = read_prompts(files["original"], files.get("extended"), long=is_long)
    todo = jobs(texts, samples, seed, part)
    about = manifest(maker, form, files, samples, seed, len(texts))
    made = sample(maker, todo, form, out, about, part)
    printing.say(
        f"{out / 'videos'}: {printing.counted(len(todo), 'video')} of shard {shard}, {made} made now"
    )


def _maker(
    form: Form,
    command: str | None,
    files: list[Path] | None,
    model: str,
    student: str | None,
    stream: list[str] | None,
    dtype: str,
    device: str,
    backend: str,
) -> Maker:
    from pyrf.evaluation.vbench.makers import CommandMaker, PipelineMaker

    if command is not None:
        return CommandMaker(command, [Path(expanded(path)) for path in files or ()])
    if files:
        raise ValueError("--file goes with --command; the weights of a model are hashed anyway")
    from pyrf.bundle.bundle import load_bundle
    from pyrf.export.fingerprint import bundle_fingerprint
    from pyrf.pipeline import StreamingPipeline

    asked = stream_choice(stream or ())
    weights = bundle_fingerprint(load_bundle(model, student=student, stream=asked))
    pipe = StreamingPipeline.from_pretrained(
        model, student=student, stream=asked, dtype=dtype, device=device, backend=backend
    )
    return PipelineMaker(pipe, weights, form)


def _dimensions(asked: list[str] | None, known: Collection[str]) -> list[str]:
    for name in asked or ():
        if name not in known:
            raise ValueError(f"no dimension {name!r} here; there are {', '.join(known)}")
    return asked or list(known)
