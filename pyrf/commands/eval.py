"""`pyrf eval`: judge a model by the world it shows, `pyrf eval world`: in all its parts and with a report;
`pyrf eval study`: the paper's ablation in miniature. Its gates, and the measures of any videos, have files
of their own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf import printing
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.ab import ab, ab_results
from pyrf.commands.gates import gates
from pyrf.commands.options import (
    DEFAULT_MODEL,
    SMALL_MODEL,
    ModelOption,
    StreamOption,
    ThreadsOption,
    check_named,
    seconds_option,
    use_threads,
)
from pyrf.commands.train import require_training
from pyrf.commands.vbench import long as vbench_long
from pyrf.commands.vbench import short as vbench
from pyrf.commands.videos import videos
from pyrf.files import expanded

if TYPE_CHECKING:
    from pyrf.worlds.world import World

app = typer.Typer(add_completion=False)
app.add_typer(vbench, name="vbench")
app.add_typer(vbench_long, name="vbench-long")
app.command()(videos)
app.command()(ab)
app.command("ab-results")(ab_results)
app.command()(gates)

STRENGTHS = (0.0, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 1.0)
"""That `pyrf eval source` measures."""


@app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    model: ModelOption = DEFAULT_MODEL,
    stream: StreamOption = None,
    world: Annotated[str, typer.Option(help="The world that the prompts are from.")] = "valley",
    recipe: Annotated[
        str | None, typer.Option(help="The recipe whose world the prompts are from, in place of --world.")
    ] = None,
    prompts: Annotated[int, typer.Option(help="Held-out prompts.")] = 200,
    seconds: Annotated[
        float, seconds_option("Length of the streams, seconds or [hh:]mm:ss; the last 5 s are judged.")
    ] = 5.0,
    sheet: Annotated[Path, typer.Option(help="Where a contact sheet of 12 streams goes.")] = Path("eval.png"),
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge how well a bundle that shows a small world follows held-out prompts."""
    if context.invoked_subcommand is not None:
        return
    check_named("--sheet", sheet)
    from pyrf.evaluation import held_out
    from pyrf.video.files import check_output
    from pyrf.video.strips import contact_sheet

    sheet = Path(expanded(sheet))
    check_output(str(sheet))
    use_threads(threads)
    scores, shown = held_out.evaluate(
        model, _world(world, recipe), prompts, seconds, sheet, stream_choice(stream or ())
    )
    if as_json:
        text = json.dumps(scores)
    else:
        judged = printing.counted(prompts, "held-out prompt")
        rows = [f"{judged}, {seconds:g} s streams, last 5 s judged; pictures in {sheet}"]
        text = "\n".join(rows + [f"  {name:<16} {100 * value:5.1f} %" for name, value in scores.items()])
    try:
        contact_sheet(shown, sheet)
    finally:
        printing.deliver(text)


def _world(name: str, recipe: str | None) -> World:
    if recipe is None:
        from pyrf.worlds.choice import world_type

        return world_type(name)()
    require_training()
    from pyrf.training.kinds import load_scratch_recipe

    return load_scratch_recipe(recipe).world


@app.command("world")
def measure_world(
    out: Annotated[Path, typer.Option(help="Folder of the report and its pictures.")],
    model: ModelOption = DEFAULT_MODEL,
    stream: StreamOption = None,
    world: Annotated[str, typer.Option(help="The world that the model is to show.")] = "valley",
    recipe: Annotated[
        str | None, typer.Option(help="The recipe whose world the model is to show, in place of --world.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this part; may be repeated. By default all, in order.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(help="Held-out prompts of each part; by default as many as it needs.")
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Measure how well a bundle shows a world, part by part; the same command goes on where it stopped."""
    import logging

    check_named("--out", out)
    from pyrf.evaluation.report.run import measure
    from pyrf.evaluation.report.table import table

    use_threads(threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    out = Path(expanded(out))
    report = measure(model, _world(world, recipe), out, only, prompts, stream_choice(stream or ()))
    printing.say(table(report.measures))
    printing.say(f"written to {out}")


@app.command("source")
def measure_source(
    model: ModelOption = SMALL_MODEL,
    clips: Annotated[int, typer.Option(help="Clips that the shapes world draws.", min=1)] = 16,
    strength: Annotated[
        list[float] | None, typer.Option(help="A strength, 0..1; may be repeated. By default several.")
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Measure live video in: clips of the shapes world are restyled by prompts that change one attribute."""
    use_threads(threads)
    from pyrf.evaluation.restyled import restyle, rows, table
    from pyrf.pipeline import StreamingPipeline
    from pyrf.streaming.restyle import check_strength
    from pyrf.worlds.shapes.world import ShapesWorld

    strengths = [check_strength(value) for value in strength or STRENGTHS]
    pipe = StreamingPipeline.from_pretrained(model)
    results = []
    for number, result in enumerate(restyle(pipe, ShapesWorld(), clips, strengths), start=1):
        results.append(result)
        if number % len(strengths) == 0:
            printing.tell(f"{number // len(strengths)} of {printing.counted(clips, 'clip')}")
    printing.deliver(table(rows(results)))


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Folder in which the stages were trained.")],
    recipe: Annotated[str, typer.Option(help="The recipe whose world and stream are measured.")] = "tiny",
    prompts: Annotated[int, typer.Option(help="Prompts that leave the speed open.")] = 64,
    seconds: Annotated[float, seconds_option("Length of the streams: seconds, or [hh:]mm:ss.")] = 60.0,
    seeds: Annotated[int, typer.Option(help="Seeds of the noise, for the spread.")] = 3,
    page: Annotated[Path, typer.Option(help="Where the table goes; plots go to img/ beside it.")] = Path(
        "study.md"
    ),
) -> None:
    """Measure DMD, Re-DMD and the sinks on long streams; the same command goes on where it stopped."""
    import logging

    check_named("--out", out)
    check_named("--page", page)
    require_training()
    from pyrf.training.kinds import load_scratch_recipe
    from pyrf.training.study.report import table, write_report
    from pyrf.training.study.study import StudySettings, columns_of, measured, run_study

    out, page = Path(expanded(out)), Path(expanded(page))
    settings = StudySettings(prompts, seconds, seeds)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    loaded = load_scratch_recipe(recipe)
    world = measured(loaded)
    columns = columns_of(world)
    results = dict(run_study(loaded, out, settings))
    numbers = f"--prompts {prompts} --seconds {seconds:g} --seeds {seeds}"
    names = shlex.join(["--out", str(out), "--recipe", recipe])
    command = f"pyrf eval study {names} {numbers} --page {shlex.quote(page.name)}"
    write_report(results, columns, world.name, settings, command, page)
    printing.say(table({variant.name: found for variant, found in results.items()}, columns))
    printing.say(f"written to {page}")
