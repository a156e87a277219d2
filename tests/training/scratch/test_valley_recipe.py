"""The valley's chain, two steps per stage: from nothing to a bundle that streams."""

import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

import pyrf
from pyrf.training.kinds import load_scratch_recipe
from pyrf.training.run import run_stage
from pyrf.training.runner import logbook
from pyrf.training.scratch.block_decoder import BlockDecoderSettings, BlockDecoderStage
from pyrf.training.scratch.recipe import ScratchRecipe

pytestmark = pytest.mark.long


def small_recipe() -> ScratchRecipe:
    """The bundled recipe with everything cut down but the codec's layout."""
    values = load_scratch_recipe("valley").model_dump(mode="json")
    values |= {"scenes": 10, "processes": 1}
    values["stages"]["codec"]["codec"] |= {"linear_clips": 4, "eval_clips": 1}
    values["stages"]["single"]["network"] |= {"dim": 32, "ffn_dim": 32, "num_heads": 2, "num_layers": 1}
    # Others are made in the same way as these.
    del values["stages"]["causal"], values["stages"]["dmd"], values["stages"]["redmd"]
    values["stages"]["turns"]["init"] = "chunk"
    for stage in values["stages"].values():
        stage["train"] |= {"steps": 2, "batch": 2, "global_batch": None, "compile": False}
        for key in ("teacher", "causal", "ode", "dmd"):
            if isinstance(stage.get(key), dict):
                stage[key] |= {"eval_prompts": 1}
        if stage["stage"] == "dmd":
            stage["train"] |= {"batch": 1}
            stage["dmd"] |= {"critic_steps": 1, "chunks": 4}
    values["stages"]["decoder"] |= {"student": "ode"}
    values["stages"]["decoder"]["decoder"] |= {"eval_clips": 1}
    values["stages"]["ode"]["ode"] |= {"paths": 2, "steps_per_jump": 1}
    values["ship"] |= {"network": "two-steps", "codec": "decoder"}
    return ScratchRecipe.model_validate(values)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as far as its second stage: the codec, the scenes that it has encoded, and a network."""
    folder, recipe = tmp_path_factory.mktemp("begun"), small_recipe()
    for name in ("codec", "single"):
        run_stage(recipe, name, folder)
    return folder


@pytest.fixture
def short_animations(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the log: after two steps streams are noise, of which a GIF takes 0.4 s per frame."""
    whole = logbook.animation
    monkeypatch.setattr(logbook, "animation", lambda name, video: whole(name, video[:2]))


@pytest.mark.usefixtures("short_animations")
def test_the_chain_makes_a_bundle_that_streams(begun: Path, tmp_path: Path) -> None:
    recipe, folder = small_recipe(), tmp_path / "run"
    shutil.copytree(begun, folder)
    for name in recipe.stages:
        run_stage(recipe, name, folder)
    bundle = recipe.make_bundle(folder)
    assert bundle is not None
    stored = load_file(bundle / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    pipe = pyrf.StreamingPipeline.from_pretrained(str(bundle))
    with pipe.stream("mountains at dusk", seed=1) as stream:
        frames = next(stream).frames
    assert frames.shape == (9, 192, 320, 3)
    assert "dusk" in pipe.card.vocabulary
    config = pipe.stream_config
    assert (config.denoising_steps, config.first_chunk_steps) == ((1000, 500), (1000, 750, 500, 250))


def test_the_decoder_learns_from_what_the_student_makes(begun: Path) -> None:
    """A student that predicts the clip itself leaves its latents; another leaves its own errors in them."""
    run = small_recipe().run_in(begun)
    network = run.network_of("single")
    stage = BlockDecoderStage(
        BlockDecoderSettings(own=1.0), run.codec.network, network, run.scenes, run.stream, batch=2
    )
    clean = run.scenes.near[:2].float()
    seen: list[torch.Tensor] = []

    def velocity(_: object, context: torch.Tensor, noisy: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(context)
        return (noisy - clean - 0.25) / stage.sigma

    stage.forcing.forward = velocity  # type: ignore[method-assign, assignment]
    found = stage.predicted(clean, ["mountains", ""], torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, clean + 0.25)
    assert seen[0].equal(clean)
    assert not any(p.requires_grad for p in [*network.parameters(), *stage.module.encoder.parameters()])
    assert all(p.requires_grad for p in stage.module.decoder.parameters())


def test_a_decoder_stage_goes_on_from_a_codec() -> None:
    values = load_scratch_recipe("valley").model_dump(mode="json")
    values["stages"]["decoder"]["init"] = "ode"
    with pytest.raises(ValidationError, match=r"no stage .ode. before it; there are codec"):
        ScratchRecipe.model_validate(values)
