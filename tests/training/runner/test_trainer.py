"""The loop: exact resume after a kill, SIGTERM, accumulation, parts, averages, bad numbers, golden losses."""

import functools
import itertools
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing import ProcessExitedException

from pyrf.config import StreamConfig
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.training.runner import checkpoints, processes
from pyrf.training.runner.finite import DivergedError
from pyrf.training.runner.stage import Draw, TrainSettings
from pyrf.training.runner.trainer import Training, lr_factor, train
from pyrf.training.scratch.causal import CausalSettings, CausalStage
from pyrf.training.scratch.latents import LatentScenes
from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo
from pyrf.worlds.shapes.captions import vocabulary
from pyrf.worlds.shapes.world import ShapesWorld
from tests.support.line_stage import Line, die, settings


def losses(folder: Path) -> list[float]:
    """Loss of each step; the log holds running means."""
    smoothed = [r["loss"] for r in map(json.loads, (folder / "log.jsonl").open()) if "loss" in r]
    return smoothed[:1] + [(b - 0.97 * a) / 0.03 for a, b in itertools.pairwise(smoothed)]


def tensors_of(folder: Path, stage: Line, chosen: TrainSettings) -> dict[str, torch.Tensor]:
    """Everything in the newest checkpoint, read back into a new run."""
    training = Training(stage, chosen, folder)
    newest = checkpoints.latest(folder / "checkpoints")
    assert newest is not None
    training.resume(newest)
    return training._weights() | training.optimizers.state()


def weight(stage: Line, part: str) -> torch.Tensor:
    """Of the student or the critic."""
    found = stage.module[part].weight
    assert isinstance(found, torch.Tensor)
    return found


def run(folder: Path, kill_at: int | None, turns: bool) -> None:
    torch.set_num_threads(1)
    before: Any = functools.partial(die, step=kill_at) if kill_at is not None else lambda draw: None
    train(lambda: Line(turns=turns, before=before), settings(), folder)


@pytest.mark.parametrize("turns", [False, True])
def test_two_processes_killed_and_resumed_end_where_an_undisturbed_run_ends(
    tmp_path: Path, turns: bool
) -> None:
    """4 steps = 2 + kill -9 + 2: weights, averages and optimiser states, bit for bit."""
    processes.launch(2, run, tmp_path / "straight", None, turns)
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        processes.launch(2, run, tmp_path / "killed", 2, turns)
    assert checkpoints.latest(tmp_path / "killed" / "checkpoints").name == "step-00000002"  # type: ignore[union-attr]
    processes.launch(2, run, tmp_path / "killed", None, turns)
    straight, resumed = (tensors_of(tmp_path / name, Line(), settings()) for name in ("straight", "killed"))
    assert straight.keys() == resumed.keys()
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name
    assert losses(tmp_path / "straight") == losses(tmp_path / "killed")


def stop_at_two(folder: Path) -> None:
    """SIGTERM comes to the second process only."""
    torch.set_num_threads(1)

    def signal_self(draw: Draw) -> None:
        if draw.step == 2 and processes.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    train(lambda: Line(before=signal_self), settings(checkpoint_minutes=60), folder)


def test_sigterm_writes_a_checkpoint_and_exits_with_0(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    processes.launch(2, stop_at_two, tmp_path)  # raises when a process exits with anything but 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    assert not (tmp_path / "exported").exists()

    with pytest.raises(SystemExit) as end:
        train(
            lambda: Line(before=lambda draw: os.kill(os.getpid(), signal.SIGTERM)),
            settings(),
            tmp_path / "one",
        )
    assert end.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is before


def stop() -> None:
    signal.raise_signal(signal.SIGTERM)


class KilledError(Exception):
    pass


def kill() -> None:
    raise KilledError


def stop_in_the_last_step(draw: Draw) -> None:
    if draw.step == 3:
        stop()


@pytest.mark.parametrize(
    ("interfered", "end", "exported"),
    [
        (functools.partial(Line, before=stop_in_the_last_step), SystemExit, False),
        (functools.partial(Line, at_evaluation=kill), KilledError, False),
        (functools.partial(Line, at_evaluation=stop), SystemExit, True),
    ],
    ids=["stopped in the last step", "killed in the evaluation", "stopped in the evaluation"],
)
def test_a_run_that_ends_late_is_finished_by_the_next(
    tmp_path: Path, interfered: Any, end: type[BaseException], exported: bool
) -> None:
    with pytest.raises(end):
        train(interfered, settings(), tmp_path)
    assert (tmp_path / "exported").exists() == exported
    train(Line, settings(), tmp_path)
    assert (tmp_path / "exported").exists()
    train(pytest.fail, settings(), tmp_path)  # done: not even built


def test_a_run_made_shorter_or_longer_is_exported_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(functools.partial(Line, before=stop_in_the_last_step), settings(steps=9), tmp_path)
    short, longer = Line(), Line()
    train(lambda: short, settings(steps=2), tmp_path)
    train(lambda: longer, settings(steps=6), tmp_path)
    assert (len(short.evaluated), len(longer.evaluated)) == (1, 1)
    path = checkpoints.latest(tmp_path / "checkpoints")
    assert path is not None
    assert checkpoints.read_progress(path)["step"] == 6


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    train(Line, settings(), tmp_path)
    with pytest.raises(ValueError, match=r"step-00000004 is of another network .*put the recipe back"):
        train(lambda: Line(width=5), settings(steps=5), tmp_path)


def test_numbers_of_some_micro_batches_are_means_of_these(tmp_path: Path) -> None:
    class Judged(Line):
        def loss(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
            loss, _ = super().loss(draw)
            return loss, {"reward": 1.0} if draw.samples.start % 4 else {}

    train(Judged, settings(steps=1, batch=2, global_batch=4), tmp_path)
    record = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert record["reward"] == 1.0


def test_a_rate_of_no_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no parameter begins with 'critc\.'.*'critic', 'student'"):
        train(Line, settings(lr_scale={"critc.": 0.2}), tmp_path)


def accumulate(folder: Path, batch: int) -> None:
    torch.set_num_threads(1)
    # AdamW's steps and clipped gradients hide a factor; unclipped ones are in its moments.
    chosen = settings(steps=3, batch=batch, global_batch=8, lr=None, clip=1e6)
    train(Line, chosen, folder / f"{batch}-{processes.world_size()}")


def test_accumulated_micro_batches_equal_the_big_batch(tmp_path: Path) -> None:
    """Also when they are spread over two processes: the samples of a step are the same eight."""
    for batch in (8, 4, 1):
        accumulate(tmp_path, batch)
    processes.launch(2, accumulate, tmp_path, 2)
    whole, *others = [
        tensors_of(tmp_path / name, Line(), settings(lr=None)) for name in ("8-1", "4-1", "1-1", "2-2")
    ]
    for other in others:
        for name, tensor in whole.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="global_batch 8 must be a multiple of batch 3 x 1 processes"):
        train(Line, settings(batch=3, global_batch=8), tmp_path / "uneven")


def test_only_the_part_whose_turn_it_is_changes(tmp_path: Path) -> None:
    """Not its weights alone: weight decay, momentum and the average of the other part rest as well."""
    stage, seen = Line(turns=True), []
    stage.before = lambda draw: seen.append({k: v.clone() for k, v in stage.module.state_dict().items()})
    train(lambda: stage, settings(steps=4, weight_decay=0.1), tmp_path)
    parts = [
        {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}
        for a, b in itertools.pairwise(seen)
    ]
    assert parts == [{"student"}, {"critic"}, {"critic"}]


def test_learning_rates_of_parts(tmp_path: Path) -> None:
    """AdamW's first step is the learning rate, whatever the gradient."""
    stage = Line()
    before = {name: p.detach().clone() for name, p in stage.module.named_parameters()}
    train(
        lambda: stage,
        settings(steps=1, lr=None, adam_lr=1e-2, lr_scale={"critic.": 0.2}, decay=0.0),
        tmp_path,
    )
    for name, p in stage.module.named_parameters():
        expected = 1e-2 * (0.2 if name.startswith("critic.") else 1.0)
        step = (p - before[name]).abs()
        torch.testing.assert_close(step, torch.full_like(step, expected), rtol=1e-2, atol=0)


def test_the_average_begins_at_its_step_and_is_what_is_evaluated(tmp_path: Path) -> None:
    stage = Line()
    seen: list[torch.Tensor] = []

    def before(draw: Draw) -> None:
        seen.append(weight(stage, "student").detach().clone())

    stage.before = before
    train(lambda: stage, settings(steps=4, ema=0.75, ema_start=2), tmp_path)
    trained = weight(stage, "student")
    after_two, after_three = seen[2:]
    expected = after_two.lerp(after_three, 0.25).lerp(trained, 0.25)
    (evaluated,) = stage.evaluated
    torch.testing.assert_close(evaluated["student.weight"], expected)
    assert torch.equal(evaluated["critic.weight"], weight(stage, "critic"))


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path: Path) -> None:
    """A skipped step leaves everything as it was; too many in a row end the run."""
    bad = {1: math.nan, 2: math.inf, 4: math.nan}
    stage = Line()
    seen: list[torch.Tensor] = []

    def before(draw: Draw) -> float | None:
        seen.append(weight(stage, "student").detach().clone())
        return bad.get(draw.step)

    stage.before = before
    train(lambda: stage, settings(steps=6, max_skips=2), tmp_path)
    same = [torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert same == [False, True, True, False, True]
    path = checkpoints.latest(tmp_path / "checkpoints")
    assert path is not None
    assert checkpoints.read_progress(path)["skipped"] == 3
    stage = Line(before=lambda draw: math.nan if draw.step else 1.0)
    with pytest.raises(FloatingPointError, match=r"3 steps in a row .* step 3: loss nan, gradient norm nan"):
        train(lambda: stage, settings(steps=9, max_skips=2), tmp_path / "hopeless")


def test_weights_that_are_not_finite_are_neither_kept_nor_exported(tmp_path: Path) -> None:
    def spoil(draw: Draw) -> None:
        if draw.step == 2:
            weight(stage, "student").data.fill_(math.nan)

    stage = Line(before=spoil)
    with pytest.raises(DivergedError, match=r"step 3 is not kept, .*: module/student\.weight is not finite"):
        train(lambda: stage, settings(steps=4), tmp_path)
    newest = checkpoints.latest(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == "step-00000002"
    assert not (tmp_path / "exported").exists()

    def spoil_all(draw: Draw) -> None:
        weight(late, "critic").data.fill_(math.inf)

    late = Line(before=spoil_all)
    with pytest.raises(DivergedError, match="critic"):
        train(lambda: late, settings(steps=1, checkpoint_minutes=60), tmp_path / "late")
    assert not (tmp_path / "late" / "exported").exists()


def test_schedule() -> None:
    chosen = settings(steps=100, warmup=10, decay=0.5)
    factors = [lr_factor(step, chosen) for step in (0, 9, 49, 75, 99)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.02])


pytestmark = pytest.mark.usefixtures("quick_processes")

GOLDEN = [1.99665, 2.02987, 2.01307, 1.97865, 1.98675]


def small_causal_stage() -> CausalStage:
    generator = torch.Generator().manual_seed(0)
    near, far, turned = (torch.randn(4, n, 16, 4, 6, generator=generator) for n in (9, 6, 6))
    torch.manual_seed(0)
    sizes = NetworkSettings(dim=32, ffn_dim=64, num_heads=2, num_layers=2)
    codec = TAEHVCodec(TAEHV(TAEHVConfig(encoder_width=8, decoder_widths=(8, 8, 8, 8), blocks=1)))
    scenes = LatentScenes(ShapesWorld(), range(4), near, far, turned)
    stage = CausalStage(
        CausalSettings(),
        ScratchTextToVideo(sizes, vocabulary()),
        scenes,
        codec,
        StreamConfig(shift=3.0),
        batch=4,
    )
    stage.evaluate = lambda *_: {}  # type: ignore[method-assign]
    return stage


def test_golden_losses(tmp_path: Path) -> None:
    """Five steps of a small network with both optimisers: the same twice, and as they were when written."""
    runs = []
    for name in ("first", "second"):
        train(
            lambda: small_causal_stage(), settings(steps=5, batch=4, lr=0.02, adam_lr=0.01), tmp_path / name
        )
        runs.append(losses(tmp_path / name))
    assert runs[0] == runs[1]
    assert runs[0] == pytest.approx(GOLDEN, rel=2e-3)
