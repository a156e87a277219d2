"""`pyrf eval videos`: measure any videos, and compare folders of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pyrf import printing
from pyrf.commands.options import check_named
from pyrf.extras import require
from pyrf.files import expanded


def videos(
    folders: Annotated[list[Path], typer.Argument(help="Folders of .mp4 files; the first is compared with.")],
    out: Annotated[
        Path,
        typer.Option(help="Folder of the report: pages, plots and report.json; the same command goes on."),
    ],
    first_chunk: Annotated[int, typer.Option(help="Frames of a video's first chunk.", min=1)] = 9,
    chunk: Annotated[int, typer.Option(help="Frames of its other chunks.", min=3)] = 12,
    backbone: Annotated[
        Path | None,
        typer.Option(help="Folder of a small image network, such as dinov2-small, for constancy."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Measure motion, drift, flicker, borders of chunks and copying of frames, in any videos."""
    check_named("--out", out)
    require("eval", "measuring videos", "cv2", "scipy", "matplotlib")
    from pyrf.evaluation.videos.measures import Chunks
    from pyrf.evaluation.videos.report import summarise, table, write_report
    from pyrf.evaluation.videos.run import find_videos, measure_folders

    out = Path(expanded(out))
    found = find_videos([Path(expanded(folder)) for folder in folders])
    network = None
    if backbone is not None:
        from pyrf.evaluation.videos.backbone import Backbone

        network = Backbone(Path(expanded(backbone)))
    measured = measure_folders(found, Chunks(first_chunk, chunk), out, network)
    summary = summarise(measured)
    write_report(measured, summary, out)
    printing.deliver(json.dumps(summary) if as_json else table(summary))
    printing.tell(f"written to {out}/index.html")
