"""Wan's recipes in miniature: random bundles in Wan's shape, two processes, FSDP2, ODE and then Re-DMD."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pyrf.bundle import load_bundle
from pyrf.config import LatentSize
from pyrf.loop.rope import rope_table
from pyrf.models.dit.attention import PartsAttention
from pyrf.models.dit.parts import window_parts
from pyrf.training.kinds import load_recipe
from pyrf.training.recipe import RecipeError
from pyrf.training.run import run_stage
from pyrf.training.wan.networks import STUDENT_FILE, FrozenText
from pyrf.training.wan.recipe import WanRecipe
from tests.support import networks
from tests.support.masks import MaskedAttention, block_causal_mask
from tests.support.random_bundle import save_random_bundle

pytestmark = pytest.mark.usefixtures("quick_processes")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wan")
    (folder / "prompts.txt").write_text(
        "\n".join(["a red circle moves right", "a blue square", "circle spins"])
    )
    return save_random_bundle(folder / "bundle")


def recipe(bundle: Path, name: str, **train: Any) -> WanRecipe:
    """A bundled recipe with small networks, clips and numbers; all else as it is."""
    values = load_recipe(name).model_dump(mode="json")
    values |= {"processes": 2, "prompts": str(bundle.parent / "prompts.txt"), "codec": str(bundle)}
    values |= {"height": 32, "width": 48}
    config = networks.MODEL
    sizes = {k: getattr(config, k) for k in ("dim", "ffn_dim", "num_heads", "num_layers")}
    for stage in values["stages"].values():
        for network in ("student", "critic", "teacher"):
            if network in stage:
                stage[network] = {"bundle": str(bundle), **sizes}
        stage["train"] |= {"steps": 2, "global_batch": 2, "log_steps": 1, "adam_lr": 1e-3, **train}
        if "ode" in stage:
            stage["ode"] |= {"paths": 3, "shard_batches": 2, "steps_per_jump": 1, "eval_prompts": 1}
        else:
            stage["dmd"] |= {"critic_steps": 1, "eval_prompts": 1, "reward": {"kind": "motion"}}
    values["latent_frames"] = 12
    if "student" in values["stages"]:
        values["stages"]["student"]["dmd"] |= {"chunks": 4, "window_chunks": 4}
    return WanRecipe.model_validate(values)


def weights(path: Path, bundle: Path) -> dict[str, torch.Tensor]:
    """A student file, through the loader that streams use."""
    return load_bundle(bundle, student=path).transformer().state_dict()


def test_ode_then_redmd_on_two_processes(bundle: Path, tmp_path: Path) -> None:
    """Each stage leaves a student file that a stream can load, moved from where it began."""
    run_stage(recipe(bundle, "wan-1.3b-ode"), "ode", tmp_path)
    assert len(list((tmp_path / "ode" / "paths").iterdir())) == 3
    start = load_bundle(bundle).transformer().state_dict()
    after_ode = weights(tmp_path / "ode" / STUDENT_FILE, bundle)
    assert any(not torch.equal(start[name], after_ode[name]) for name in start)

    redmd = recipe(bundle, "wan-1.3b-redmd", ema_start=None)
    redmd.stages["student"].student.weights = str(tmp_path / "ode" / STUDENT_FILE)
    run_stage(redmd, "student", tmp_path)
    after = weights(tmp_path / "student" / STUDENT_FILE, bundle)
    assert any(not torch.equal(after_ode[name], after[name]) for name in start)
    records = [json.loads(line) for line in (tmp_path / "student" / "log.jsonl").open()]
    assert {"dmd_gap", "reward", "critic_loss"} <= {key for record in records for key in record}
    assert all(record.get("skipped_steps", 0) == 0 for record in records)
    assert (tmp_path / "student" / "2.png").exists()


def test_a_sharded_run_resumes_exactly_and_on_another_number_of_processes(
    bundle: Path, tmp_path: Path
) -> None:
    """The samples of a step do not depend on the number of processes, and checkpoints are resharded."""

    def run(name: str, processes: int, steps: int) -> dict[str, torch.Tensor]:
        chosen = recipe(bundle, "wan-1.3b-redmd", steps=steps)
        chosen.processes = processes
        run_stage(chosen, "student", tmp_path / name)
        return weights(tmp_path / name / "student" / STUDENT_FILE, bundle)

    straight = run("straight", 2, 3)
    run("resumed", 2, 1)
    shutil.copytree(tmp_path / "resumed", tmp_path / "fewer")
    resumed, fewer = run("resumed", 2, 3), run("fewer", 1, 3)
    for key, expected in straight.items():
        assert torch.equal(resumed[key], expected), key
        torch.testing.assert_close(fewer[key], expected, rtol=0, atol=1e-3)


def test_paths_are_made_once(bundle: Path, tmp_path: Path) -> None:
    chosen = recipe(bundle, "wan-1.3b-ode")
    chosen.processes = 1
    run_stage(chosen, "ode", tmp_path)
    shards = sorted((tmp_path / "ode" / "paths").iterdir())
    before = [load_file(shard) for shard in shards]
    shards[1].unlink()
    chosen.stages["ode"].train.steps = 3
    run_stage(chosen, "ode", tmp_path)
    for shard, expected in zip(shards, before):
        made = load_file(shard)
        assert made.keys() == expected.keys()
        assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())


def test_what_does_not_fit_is_refused_before_anything_is_made(bundle: Path, tmp_path: Path) -> None:
    for change, message in (
        ({"latent_frames": 10}, r"latent_frames must be a multiple of chunk_frames \(3\), got 10"),
        ({"height": 40}, r"height and width must be multiples of 16, got \(40, 48\)"),
        ({"prompts": "none.txt"}, r"none\.txt: no such file"),
    ):
        values = recipe(bundle, "wan-1.3b-ode").model_dump(mode="json") | {"processes": 1} | change
        with pytest.raises(ValueError, match=message):
            run_stage(WanRecipe.model_validate(values), "ode", tmp_path)
    wrong = recipe(bundle, "wan-1.3b-ode")
    wrong.processes = 1
    wrong.stages["ode"].student.num_layers = 3
    with pytest.raises(RecipeError, match="num_layers is 2, the recipe says 3"):
        run_stage(wrong, "ode", tmp_path)
    wrong.stages["ode"].train.batch = 3
    with pytest.raises(ValueError, match="global_batch 2 must be a multiple of batch 3 x 1 processes"):
        run_stage(wrong, "ode", tmp_path)


def test_the_window_equals_its_mask() -> None:
    model = networks.dit()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 16, 4, 6, generator=generator)
    timesteps = torch.tensor([900.0, 500.0, 300.0, 700.0]).repeat_interleave(2).expand(2, -1)
    prompt = model.encode_prompt(torch.randn(2, networks.MODEL.text_len, networks.MODEL.text_dim))
    mask = block_causal_mask(8, 6, 2, window_frames=6)
    rope = rope_table(model.config, range(8), LatentSize(4, 6))
    with torch.no_grad():
        masked = model(x, timesteps, prompt, attention=MaskedAttention(rope, mask))
        torch.testing.assert_close(
            model(x, timesteps, prompt, attention=PartsAttention(rope, window_parts(4, 12, 3))), masked
        )


def test_prompts_are_embedded_once_and_the_encoder_goes_home(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = networks.text_encoder()
    text = FrozenText(encoder, "a blue square", torch.device("cpu"), kept=2)
    moves: list[str] = []
    monkeypatch.setattr(encoder.network, "to", lambda device: moves.append(str(device)))
    rows = text.encode(["a red circle", "", "a red circle"])
    expected = encoder.encode(["a red circle", "a blue square"])
    torch.testing.assert_close(rows, expected[[0, 1, 0]], rtol=1e-5, atol=1e-6)
    assert moves == ["cpu", "cpu"]
    text.encode(["", "a red circle"])
    assert len(moves) == 2
    text.encode(["circle spins"])
    text.encode(["a red circle"])
    assert len(moves) == 4
