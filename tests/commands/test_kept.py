"""What is whole is kept, and told, where its name was taken meanwhile."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrf import cli
from pyrf.evaluation import held_out
from pyrf.pipeline import Chunk, Stream
from tests.support.command_line import PROMPT, shape_of


def test_a_whole_video_is_kept_when_its_name_is_taken_meanwhile(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compute = Stream._compute

    def take_the_name(self: Stream) -> Chunk | None:
        (tmp_path / "out.mp4").mkdir(exist_ok=True)
        return compute(self)

    monkeypatch.setattr(Stream, "_compute", take_the_name)
    arguments = ["generate", PROMPT, "-o", f"{tmp_path}/out.mp4", "--seconds=.5"]
    assert cli.run([*arguments, "--model", str(random_bundle)]) == 2
    assert f"is whole and kept as {tmp_path}/out-1.mp4" in capsys.readouterr().err
    assert shape_of(tmp_path / "out-1.mp4")[0] == 8


def test_scores_are_told_though_their_sheet_has_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"

    def evaluate(*_: object) -> tuple[dict[str, float], list[tuple[str, np.ndarray]]]:
        sheet.mkdir()
        return {"color": 0.5}, [("a red circle", np.zeros((9, 64, 96, 3), np.uint8))]

    monkeypatch.setattr(held_out, "evaluate", evaluate)
    assert cli.run(["eval", "--prompts", "1", "--sheet", str(sheet)]) == 2
    out, err = capsys.readouterr()
    assert "1 held-out prompt, 5 s streams" in out
    assert "color             50.0 %" in out
    assert f"is whole and kept as {tmp_path}/sheet-1.png" in err
    with Image.open(tmp_path / "sheet-1.png") as image:
        assert image.width > 96
