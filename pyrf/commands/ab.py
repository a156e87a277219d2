"""`pyrf eval ab`: a page for blind judging side by side; `pyrf eval ab-results`: what the votes say."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import typer

from pyrf import printing
from pyrf.commands.options import check_named
from pyrf.extras import require
from pyrf.files import expanded, whole_file


def ab(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with clips of the same names, one per method.")
    ],
    votes: Annotated[Path, typer.Option(help="SQLite file of the votes; the same command goes on with it.")],
    invite: Annotated[int, typer.Option(help="New raters to invite.", min=0, max=1000)] = 0,
    question: Annotated[
        list[str] | None,
        typer.Option(help="A question of your own; may be repeated. By default three.", metavar="NAME=TEXT"),
    ] = None,
    trials: Annotated[int, typer.Option(help="Comparisons per rater.", min=1)] = 30,
    seed: Annotated[int, typer.Option(help="Of sides and order.", min=0)] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is any free one.", min=0, max=65535)] = 8020,
) -> None:
    """Serve a page on which invited people judge clips side by side, without knowing the methods."""
    check_named("--votes", votes)
    require("serve", "the page", "fastapi", "uvicorn")
    import socket

    import uvicorn

    from pyrf.evaluation.ab.page import make_app
    from pyrf.evaluation.ab.study import make_study
    from pyrf.evaluation.ab.votes import Votes

    study = make_study([Path(expanded(folder)) for folder in folders], question or (), trials, seed)
    kept = Votes(Path(expanded(votes)), study)
    kept.invite(invite)
    if not kept.tokens():
        raise ValueError("nobody is invited yet; give --invite with the number of raters")
    with socket.create_server((host, port)) as listener:
        address = f"http://{host}:{listener.getsockname()[1]}"
        for number, token in enumerate(kept.tokens()):
            printing.say(f"rater {number}: {address}/r/{token}")
        printing.say(f"{len(study.items)} clips of {', '.join(study.methods)}; Ctrl-C ends this")
        config = uvicorn.Config(
            make_app(kept), log_level="warning", limit_concurrency=200, server_header=False
        )
        uvicorn.Server(config).run([listener])


def ab_results(
    votes: Annotated[Path, typer.Argument(help="The SQLite file of pyrf eval ab.")],
    table: Annotated[Path | None, typer.Option("--csv", help="Write every vote into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print strengths, win rates, agreement and effect sizes of the votes."""
    require("eval", "evaluating votes", "scipy", "choix", "krippendorff")
    from pyrf.evaluation.ab.results import results, text, told
    from pyrf.evaluation.ab.votes import Vote, Votes

    kept = Votes(Path(expanded(votes)))
    all_votes = kept.all()
    if table is not None:
        check_named("--csv", table)
        with whole_file(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Vote._fields)
            writer.writerows(all_votes)
    found = results(all_votes, kept.study.methods, tuple(kept.study.questions))
    printing.deliver(json.dumps(told(found)) if as_json else text(found))
