"""The notebook of the examples is executed by Jupyter's own client, as it stands."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pyrf.worlds.shapes.detector import detect

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parent.parent / "examples" / "first_stream.ipynb"
TIMEOUT_S = 300


def test_it_runs_and_shows_what_it_says(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "the file is kept without outputs"
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=TIMEOUT_S, resources=resources).execute()
    size, _, live, _, words = (output_of(cell) for cell in cells)
    assert size["text/plain"] == "'frames of 64 x 96, 16 per second'"
    red, blue = "'a large red circle moves right'", "'a large blue square bounces'"
    assert live["text/plain"].replace("\n", "") == f"[{red}, {red}, {blue}, {blue}, {blue}]"
    assert words["text/plain"] == "{'gray': 'grey', 'falling': 'falls'}"
    seen = detect(frames_of(tmp_path / "first.webp"))
    assert (seen.color, seen.shape, seen.motion) == ("red", "circle", "right")
    seen = detect(frames_of(tmp_path / "story.webp")[-9:])
    assert (seen.color, seen.shape) == ("yellow", "triangle")
    picture = next(output for output in cells[2].outputs if output.output_type == "display_data")
    with Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"]))) as image:
        assert image.size == (4 * 96, 4 * 64)


def output_of(cell: Any) -> Any:
    """What the last line of a cell gives, by its kinds."""
    return cell.outputs[-1].data


def frames_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])
