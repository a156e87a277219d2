"""`pyrf script`: a look at a story before a video is made of it."""

from __future__ import annotations

from typing import Annotated

import typer

from pyrf import printing
from pyrf.commands.options import DEFAULT_MODEL, ModelOption, seconds_option
from pyrf.commands.story import check_places, times_of, told
from pyrf.moments import format_time
from pyrf.streaming import mix
from pyrf.streaming.change import Change, schedule
from pyrf.streaming.prompts import as_prompts

app = typer.Typer(help="Check a story, a file for `pyrf generate --script`.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Check a story, a file for `pyrf generate --script`."""


@app.command()
def check(
    script: Annotated[str, typer.Argument(help="The story, a YAML file.", metavar="FILE")],
    seconds: Annotated[
        float | None, seconds_option("Length of the video; by default the story's, else 5 seconds.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
) -> None:
    """Check a story and print when each of its changes will be seen. No weights are loaded."""
    story = told(None, None, None, script, None, seconds)
    times = times_of(model)
    placed = check_places(story, times, continues=False)
    rows = [("0", format_time(0.0), mix.told(story.prompt))]
    for chunk, change in sorted(placed.items()):
        planned = schedule(times, chunk, change.over)
        what = _what(change)
        if planned.full_chunk > chunk:
            what += f" (whole from chunk {planned.full_chunk} on, at {_clock(planned.full_s)})"
        rows.append((str(chunk), _clock(planned.at_s), what))
    rows.append(("", _clock(story.seconds), f"end; seed {story.seed}"))
    rows.insert(0, ("chunk", "time", "what"))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    printing.deliver(
        "\n".join(f"{chunk:>{widths[0]}}  {at:>{widths[1]}}  {what}" for chunk, at, what in rows)
    )


def _what(change: Change) -> str:
    told = [] if change.prompt is None else [mix.told(as_prompts(change.prompt)[0])]
    told += [f"adapter {name} {strength:g}" for name, strength in change.adapters.items()]
    if change.recache:
        told.append("recached")
    return ", ".join(told)


def _clock(seconds: float) -> str:
    return format_time(round(seconds, 3))
