"""Bundles are judged by the world they show; what cannot be judged is refused before a stream is made."""

import subprocess
import sys
from pathlib import Path

import pytest

from pyrf.cli import run
from pyrf.evaluation.held_out import evaluate
from pyrf.worlds.choice import WORLDS
from tests.support.random_bundle import save_random_bundle


@pytest.mark.parametrize(
    ("prompts", "seconds", "sheet", "message"),
    [
        (4, 5.0, "sheet.jpg", r"give a path that ends in \.png"),
        (0, 5.0, "sheet.png", "a prompt and 0.56 seconds at least, got 0 and 5.0"),
        (4, 0.5, "sheet.png", "a prompt and 0.56 seconds at least, got 4 and 0.5"),
        (4, float("inf"), "sheet.png", "seconds at least"),
    ],
)
def test_what_cannot_be_judged_is_refused(prompts: int, seconds: float, sheet: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate("no/bundle", WORLDS["shapes"](), prompts, seconds, Path(sheet))


def test_a_bundle_of_another_size_is_refused(tmp_path: Path) -> None:
    bundle = save_random_bundle(tmp_path / "bundle")
    with pytest.raises(ValueError, match="does not show the shapes world: it makes 48x32 video"):
        evaluate(str(bundle), WORLDS["shapes"](), 4, 5.0, tmp_path / "sheet.png")


def test_an_unknown_world_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--world", "ocean"]) == 2
    assert capfd.readouterr().err == "error: no world 'ocean'; there are shapes, valley\n"


def test_it_needs_no_training() -> None:
    code = (
        "import sys, pyrf.evaluation.held_out, pyrf.commands.eval\n"
        "print(*(m for m in ('pyrf.training', 'pydantic', 'yaml', 'tensorboard') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
