"""The dry run: figures of the Wan recipes against formulas of their own, and no weights needed."""

import json
from pathlib import Path

import pytest

from pyrf.cli import run
from pyrf.training import dry_run
from pyrf.training.kinds import load_recipe
from pyrf.training.wan import memory
from pyrf.training.wan.recipe import WanRecipe

GIB = 2**30
SIZES = {"1.3B": (1536, 8960, 30), "14B": (5120, 13824, 40)}
WAN = ("wan-1.3b-ode", "wan-1.3b-redmd")


def wan_parameters(size: str) -> int:
    """From the network's definition: blocks, embeddings and head."""
    dim, ffn, layers = SIZES[size]
    attention = 4 * (dim * dim + dim) + 2 * dim
    block = 2 * attention + 2 * dim + (2 * dim * ffn + ffn + dim) + 6 * dim
    text = 4096 * dim + dim + dim * dim + dim
    time = 256 * dim + dim + dim * dim + dim + 6 * (dim * dim + dim)
    patch, head = 16 * 4 * dim + dim, dim * 64 + 64 + 2 * dim
    return layers * block + text + time + patch + head


def counted(name: str, gpus: int) -> dry_run.StagePlan:
    (stage,) = dry_run.plan(load_recipe(name), gpus).stages
    return stage


@pytest.mark.parametrize("gpus", [1, 8, 64])
@pytest.mark.parametrize("name", WAN)
def test_parameters_and_states_follow_from_the_sizes(name: str, gpus: int) -> None:
    stage = counted(name, gpus)
    assert stage.global_batch == 64
    assert stage.micro_batches == 64 // gpus
    small, teacher = wan_parameters("1.3B"), wan_parameters("1.3B" if name == WAN[0] else "14B")
    assert stage.networks["student"].parameters == small
    assert stage.networks["teacher"].parameters == teacher
    parts = {row.part: row.bytes for row in stage.memory}
    assert parts["student: weights"] == pytest.approx(4 * small / gpus, rel=0.02)
    assert parts["student: AdamW"] == 2 * parts["student: weights"]
    assert parts["student: average"] == parts["gradients"] == parts["student: weights"]
    assert parts["teacher: weights"] == pytest.approx(2 * teacher / gpus, rel=0.02)
    assert ("critic: AdamW" in parts) == (name == WAN[1])
    assert stage.gpu_bytes == sum(parts.values())


def test_a_judge_counts_in_a_combination_too() -> None:
    recipe = load_recipe("wan-1.3b-redmd").model_dump(mode="json")
    judge = recipe["stages"]["student"]["dmd"]["reward"]
    combined = {"kind": "combined", "rewards": [judge, {"kind": "motion"}], "weights": {"MQ": 1.0}}
    recipe["stages"]["student"]["dmd"]["reward"] = combined
    (stage,) = dry_run.plan(WanRecipe.model_validate(recipe), 8).stages
    assert stage.gpu_bytes == counted("wan-1.3b-redmd", 8).gpu_bytes


def test_redmd_is_the_papers() -> None:
    """3,600 steps are 600 of the student, and the estimates of activations are those of the geometry."""
    stage = counted("wan-1.3b-redmd", 64)
    assert stage.steps == 600 * (1 + 5)
    assert stage.samples == 3600 * 64
    parts = {row.part: row.bytes for row in stage.memory}
    chunk = 3 * 30 * 52  # tokens
    slot = 2 * 30 * chunk * 1536 * 2  # keys and values of all layers in bf16
    assert parts["KV cache of the rollout"] == 3 * slot + slot
    assert parts["contexts of the rollout"] == (0 + 1 + 5 * 2) * slot
    rollout = 30 * 7 * chunk * 1536 * 2 + chunk * (16 * 1536 + 2 * 8960) * 2
    teacher = 2 * 7 * chunk * (6 * 5120 + 13824) * 2
    critic = 30 * 7 * chunk * 1536 * 2 + 7 * chunk * (16 * 1536 + 2 * 8960) * 2
    assert parts["activations (estimate)"] == max(rollout + teacher, critic)
    assert parts["reward: weights"] / 2 == pytest.approx(2.2e9, rel=0.01)
    assert stage.host_bytes / 2 == pytest.approx(5.68e9, rel=0.01)
    assert memory.vae_parameters() == pytest.approx(127e6, rel=0.01)
    for gpus in (8, 64):
        assert 10 * GIB < counted("wan-1.3b-redmd", gpus).gpu_bytes < 141 * GIB


def test_it_knows_wan22() -> None:
    """Tokens of 32 x 32 pixels, 48 channels at both ends of the network, and the larger VAE."""
    values = load_recipe("wan-1.3b-ode").model_dump(mode="json")
    network = {"bundle": "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "channels": 48}
    network |= {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30}
    values["stages"]["ode"] |= {"student": network, "teacher": network}
    values |= {"height": 704, "width": 1280}
    (stage,) = dry_run.plan(WanRecipe.model_validate(values), 8).stages
    assert 4 * stage.networks["student"].parameters == 19_999_150_848
    parts = {row.part: row.bytes for row in stage.memory}
    tokens = 21 * 22 * 40
    student = 30 * tokens * 3072 * 2 + tokens * (16 * 3072 + 2 * 14336) * 2
    assert parts["activations (estimate)"] == max(student, 2 * tokens * (6 * 3072 + 14336) * 2)
    assert parts["VAE: weights"] == 4 * memory.vae_parameters(48) == 4 * 704_688_668


def test_recompute_is_what_makes_it_fit() -> None:
    recipe = load_recipe("wan-1.3b-redmd")
    assert isinstance(recipe, WanRecipe)
    kept = dry_run.plan(recipe, 8).stages[0].gpu_bytes
    recipe.checkpointing = False
    assert dry_run.plan(recipe, 8).stages[0].gpu_bytes > kept + 50 * GIB


@pytest.mark.parametrize("name", [*WAN, "tiny"])
def test_it_prints_on_any_machine(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    assert run(["train", name, "--dry-run"]) == 0
    printed = capfd.readouterr().out
    assert "global batch" in printed
    if name != "tiny":
        assert "1,418,996,800" in printed
        assert "prompts.parquet" in printed
        assert "present" not in printed
    assert run(["train", name, "--dry-run", "--gpus", "16", "--json"]) == 0
    values = json.loads(capfd.readouterr().out)
    assert values["processes"] == 16
    assert {stage["stage"] for stage in values["stages"]} == set(load_recipe(name).stages)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_are_seen(tmp_path: Path, random_bundle: Path) -> None:
    recipe = load_recipe("wan-1.3b-ode")
    assert isinstance(recipe, WanRecipe)
    recipe.prompts = tmp_path / "prompts.txt"
    recipe.prompts.write_text("a cat\n")
    recipe.codec = str(random_bundle)
    (tmp_path / "ode" / "paths").mkdir(parents=True)
    (tmp_path / "ode" / "paths" / "0.safetensors").touch()
    needs = {need.what: need for need in dry_run.plan(recipe, 8, tmp_path).files}
    assert needs["prompts"].there
    assert needs["text encoder, VAE"].there
    assert not needs["teacher: bundle"].there
    assert needs["paths"].name.startswith("1 of 1000 shards")


def test_a_wrong_number_of_gpus_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "wan-1.3b-redmd", "--dry-run", "--gpus", "48"]) == 2
    assert "global_batch 64 must be a multiple of batch 1 x 48 processes" in capfd.readouterr().err
    assert run(["train", "wan-1.3b-redmd"]) == 2
    assert "--out is missing" in capfd.readouterr().err
