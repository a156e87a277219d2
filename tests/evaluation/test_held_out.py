"""Bundles are judged by the world they show; what cannot be judged is refused before a stream is made."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyrf.cli import run
from pyrf.evaluation import held_out
from pyrf.evaluation.held_out import evaluate
from pyrf.evaluation.streams import Student
from pyrf.worlds.choice import WORLDS
from pyrf.worlds.world import World, WorldPrompt
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


def test_a_bundle_of_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="it makes 24 frames per second, the world 16"):
        held_out.bundle_for("tiny", WORLDS["shapes"](), "fps=24")


def test_the_last_five_seconds_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stream of seven: the first two are not looked at."""
    world = WORLDS["shapes"]()
    prompts = world.held_out(18)  # more than one batch
    judged: list[np.ndarray] = []

    def stream(student: Student, of: World, captions: list[str], seeds: range, seconds: float) -> np.ndarray:
        assert captions == [prompts[seed].text for seed in seeds]
        times = np.arange(round(seconds * of.fps), dtype=np.uint8)
        return np.broadcast_to(times[None, :, None, None, None], (len(captions), len(times), 8, 8, 3))

    monkeypatch.setattr(held_out, "make_videos", stream)

    def judge(self: World, frames: np.ndarray, prompt: WorldPrompt) -> dict[str, bool]:
        judged.append(frames)
        return {}

    monkeypatch.setattr(type(world), "judge", judge)
    _, shown = held_out.score_streams(None, world, 18, 7.0)  # type: ignore[arg-type]
    assert [(title, len(video)) for title, video in shown] == [(p.text, 7 * world.fps) for p in prompts[:12]]
    assert len(judged) == 18
    for frames in judged:
        assert frames[:, 0, 0, 0].tolist() == list(range(2 * world.fps, 7 * world.fps))


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
