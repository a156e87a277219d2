"""A report is made part by part, is continued, and is refused before anything is streamed."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pyrf.cli import run as cli
from pyrf.evaluation.report import run
from pyrf.evaluation.report.examined import Examined, Part
from pyrf.evaluation.report.lasting import lasting
from pyrf.evaluation.report.measures import share
from pyrf.evaluation.report.run import Kind, measure
from pyrf.worlds.choice import WORLDS
from tests.support.random_bundle import save_random_bundle

SHAPES = WORLDS["shapes"]()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Parts that stream nothing; what was measured, and on how many prompts. The second fails at first."""
    made: list[tuple[str, int]] = []

    def count(name: str, examined: Examined, prompts: int) -> Part:
        made.append((name, prompts))
        if made == [("one", 3), ("two", 3)]:
            raise KeyboardInterrupt
        return Part([share(name, [True] * prompts)], [(name, np.zeros((2, 16, 24, 3), np.uint8))])

    kinds = {name: Kind(partial(count, name), 5) for name in ("one", "two", "three")}
    monkeypatch.setattr(run, "PARTS", kinds)
    return made


def test_a_report_goes_on_where_it_stopped(tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    out = tmp_path / "report"
    with pytest.raises(KeyboardInterrupt):
        measure("tiny", SHAPES, out, None, 3)
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "report.json", "report.md"]
    report = measure("tiny", SHAPES, out, None, 3)
    assert calls == [("one", 3), ("two", 3), ("two", 3), ("three", 3)]
    assert list(report.measures) == ["one", "two", "three"]
    assert measure("tiny", SHAPES, out, ["two"], 3).measures == report.measures
    measure("tiny", SHAPES, out, ["one"])  # on its own number of prompts
    assert calls[4:] == [("one", 5)]
    told = json.loads((out / "report.json").read_text())
    assert {name: part["prompts"] for name, part in told["parts"].items()} == {"one": 5, "two": 3, "three": 3}
    assert "| two | two | 100.0 % |" in (out / "report.md").read_text()


@pytest.mark.usefixtures("calls")
def test_a_report_about_something_else_is_not_continued(tmp_path: Path) -> None:
    measure("tiny", SHAPES, tmp_path, ["one"], 2)
    file = tmp_path / "report.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "weights": "others"}))
    with pytest.raises(ValueError, match="is about another weights: others"):
        measure("tiny", SHAPES, tmp_path, ["one"], 2)
    file.write_text(json.dumps({**told, "parts": {"one": 3}}))
    with pytest.raises(ValueError, match=r"report\.json: damaged"):
        measure("tiny", SHAPES, tmp_path, ["one"], 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--world", "ocean"], "no world 'ocean'; there are shapes, valley"),
        (["--only", "hour"], "no part 'hour'; there are attributes, minute, ten-minutes, changes, picture"),
        (["--world", "valley"], "tiny does not show the valley world: it makes 96x64 video"),
        (["--prompts", "0"], "attributes needs 1 prompt at least, got 0"),
        (["--only", "told-apart", "--prompts", "1"], "told-apart needs 2 prompts at least, got 1"),
        (["--model", "./nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert cli(["eval", "world", "--world", "shapes", "--out", str(out), *options]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert not out.exists()


def test_a_file_is_no_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report").touch()
    assert cli(["eval", "world", "--world", "shapes", "--out", str(tmp_path / "report")]) == 2
    assert "is a file; name a folder for the report" in capfd.readouterr().err
    bundle = save_random_bundle(tmp_path / "bundle")
    assert cli(["eval", "world", "--model", str(bundle), "--out", str(tmp_path / "new")]) == 2
    assert "it makes 48x32 video; name the world that it shows" in capfd.readouterr().err


def test_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of its own, and a report that says what is in them."""
    monkeypatch.setattr("pyrf.evaluation.report.lasting.PAIRS", 4)
    monkeypatch.setitem(run.PARTS, "minute", Kind(partial(lasting, seconds=7.0), 2))
    parts = ["--only", "minute", "--only", "picture", "--prompts", "2"]
    arguments = ["eval", "world", "--world", "shapes", *parts]
    assert cli([*arguments, "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "report.json").read_text())
    assert list(told["parts"]) == ["minute", "picture"]
    found = {m["name"]: m["value"] for part in told["parts"].values() for m in part["measures"]}
    assert found["color"] == 1
    assert found["clips: blew up"] == found["clips: frozen"] == 0
    assert 0.3 < found["sharpness"] < 1.5
    assert (tmp_path / "minute.png").exists()
    assert (tmp_path / "picture.png").exists()
