"""The gates measure, are kept, and stop at the first not passed, on a run of random small networks."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from pyrf import cli
from pyrf.training.kinds import load_scratch_recipe
from pyrf.training.run import run_stage
from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo
from pyrf.training.scratch.recipe import ScratchRecipe
from pyrf.training.study import gates
from pyrf.training.study.gates import GateSettings, interval, run_gates
from pyrf.worlds.shapes.captions import vocabulary
from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.world import Frames
from tests.support import networks

SETTINGS = GateSettings(prompts=2, captions=2, seeds=2, rollouts=4, critic_steps=2)
OPTIONS = ["--prompts=2", "--captions=2", "--seeds=2", "--rollouts=4", "--critic-steps=2"]


def small_values() -> dict[str, Any]:
    """The tiny recipe with two short stages that match distributions."""
    values = load_scratch_recipe("tiny").model_dump(mode="json")
    values |= {"scenes": 10, "processes": 1}
    for name in ("redmd-1", "redmd-3", "redmd-5"):
        del values["stages"][name]
    for name in ("dmd", "redmd"):
        stage = values["stages"][name]
        stage["train"] |= {"steps": 4, "batch": 2, "compile": False}
        stage["dmd"] |= {"critic_steps": 1, "chunks": 3, "eval_prompts": 1}
    return values


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stages before `dmd`, with random weights, and `dmd` itself, which was run."""
    folder = tmp_path_factory.mktemp("run")
    sizes = NetworkSettings(dim=32, ffn_dim=32, num_heads=2, num_layers=1)
    for number, stage in enumerate(("score", "ode")):
        torch.manual_seed(number)
        network = ScratchTextToVideo(sizes, vocabulary())
        torch.nn.init.normal_(network.dit.head.head.weight, std=0.1)
        (folder / stage).mkdir()
        network.save(folder / stage)
    (folder / "codec").mkdir()
    codec = networks.codec().network
    (folder / "codec" / "config.json").write_text(json.dumps(codec.config.to_dict()))
    weights = {name: tensor.contiguous() for name, tensor in codec.state_dict().items()}
    save_file(weights, folder / "codec" / "diffusion_pytorch_model.safetensors")
    run_stage(ScratchRecipe.model_validate(small_values()), "dmd", folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_values(), sort_keys=False))
    return str(path)


Reward = Callable[[torch.Tensor, list[str]], torch.Tensor]


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other clip, the teacher's, earns more, and speeds spread more there; none is broken."""
    turn = [0]

    def number() -> int:
        turn[0] += 1
        return turn[0] - 1

    def reward(_: object) -> Reward:
        return lambda frames, prompts: torch.tensor([1.0 - number() % 2])

    def measure(_: ShapesWorld, video: Frames) -> dict[str, float]:
        i = number()
        return {"dynamic": 10 + (3 if i % 2 == 0 else 1) * (i // 2 % 2)}

    monkeypatch.setattr(gates, "load_reward", reward)
    monkeypatch.setattr(ShapesWorld, "measure", measure)
    monkeypatch.setattr(ShapesWorld, "is_broken", lambda self, clip: False)
    monkeypatch.setattr(gates, "MOST_ABOVE", 1.0)


@pytest.mark.usefixtures("passing")
def test_all_gates_are_measured_and_read_back(
    run: Path, recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", "gates", "--out", str(run), "--recipe", recipe, *OPTIONS]
    assert cli.run([*command, "--json"]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert told["passed"] is True
    assert [gate["name"] for gate in told["gates"]] == list(gates.GATES)
    assert "gate spread, passed: the student before distillation is narrower" in printed.err
    reward, spread, critic = told["gates"]
    assert [f["name"] for f in reward["figures"]][:3] == [
        "reward of the teacher",
        "reward of the student",
        "teacher above student",
    ]
    assert reward["figures"][2]["low"] > 0
    teacher, student = spread["figures"][:2]
    assert teacher["value"] == pytest.approx(3 * student["value"])
    assert "the fresh critic took 2" in critic["note"]
    own, fresh, start, above = critic["figures"]
    assert above["value"] == pytest.approx(own["value"] / fresh["value"] - 1)
    assert own["value"] != start["value"] != fresh["value"]
    for name in ("_reward", "_spread", "_critic"):  # what is on disk is not measured again
        monkeypatch.setattr(gates, name, None)
    assert cli.run(command) == 0
    out = capsys.readouterr().out
    assert out.count("| yes |") == 3
    assert "not measured" not in out


def test_the_first_gate_that_is_not_passed_is_the_last(
    run: Path, recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random networks show no shapes: all clips are broken."""
    monkeypatch.setattr(ShapesWorld, "is_broken", lambda self, clip: True)
    options = ["--prompts=3", *OPTIONS[1:]]
    assert cli.run(["eval", "gates", "--out", str(run), "--recipe", recipe, *options]) == 1
    printed = capsys.readouterr()
    assert "broken clips of the teacher | 100.0 % |" in printed.out
    assert "stopped here; not measured: spread, critic" in printed.out
    assert "gate reward, NOT passed" in printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage=dmd"], "stage dmd has no reward to compare; name one that has with --stage: redmd"),
        (["--stage=ode"], "--stage names a stage of kind dmd; ode is of kind ode"),
        (["--critic=nothing"], "the recipe has no stage 'nothing'"),
        (["--prompts=1"], "gates need prompts of 2 at least, got 1"),
        (["--critic-steps=0"], "gates need critic-steps of 1 at least, got 0"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(
    run: Path, recipe: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["eval", "gates", "--out", str(run), "--recipe", recipe, *options]) == 2
    assert message in capsys.readouterr().err


def test_stages_that_were_not_run_are_named(
    run: Path, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "codec").symlink_to(run / "codec")
    assert cli.run(["eval", "gates", "--out", str(tmp_path), "--recipe", recipe]) == 2
    assert "holds no network.safetensors; run the stage score first" in capsys.readouterr().err


@pytest.mark.usefixtures("passing")
def test_a_critic_that_was_not_trained_is_named(run: Path, tmp_path: Path) -> None:
    for name in ("codec", "score", "ode", "scenes"):
        (tmp_path / name).symlink_to(run / name)
    measured: Iterator[object] = run_gates(
        ScratchRecipe.model_validate(small_values()), tmp_path, "redmd", "dmd", SETTINGS
    )
    assert len([next(measured), next(measured)]) == 2
    with pytest.raises(FileNotFoundError, match="dmd holds no checkpoint, and the critic is kept there only"):
        next(measured)


def test_an_interval_holds_the_mean_and_narrows() -> None:
    rows = np.random.default_rng(1).normal(5.0, 2.0, (400, 1))
    value, low, high = interval(rows, lambda drawn: float(drawn.mean()))
    assert low < value < high
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)
    _, low, high = interval(rows[:25], lambda drawn: float(drawn.mean()))
    assert high - low > 1.0


def test_the_spread_is_pooled_over_captions_without_what_is_broken() -> None:
    speeds = np.array([[1.0, 3.0, np.nan], [10.0, 10.0, 10.0]])
    assert gates._pooled(speeds) == pytest.approx((2.0 / 3) ** 0.5)  # of 1 + 2 degrees of freedom
