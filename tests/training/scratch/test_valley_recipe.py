"""The valley's chain, two steps a stage: from nothing to a bundle that streams."""

from pathlib import Path

import torch
from safetensors.torch import load_file

import pyrf
from pyrf.training.kinds import load_scratch_recipe
from pyrf.training.run import run_stage
from pyrf.training.scratch.recipe import ScratchRecipe


def small_recipe() -> ScratchRecipe:
    """The bundled recipe with everything cut down but the codec's layout."""
    values = load_scratch_recipe("valley").model_dump(mode="json")
    values |= {"scenes": 10, "processes": 1}
    values["stages"]["codec"]["codec"] |= {"linear_clips": 4, "eval_clips": 1}
    values["stages"]["single"]["network"] |= {"dim": 32, "ffn_dim": 32, "num_heads": 2, "num_layers": 1}
    for stage in values["stages"].values():
        stage["train"] |= {"steps": 2, "batch": 2, "global_batch": None, "compile": False}
        for key in ("teacher", "causal", "ode"):
            if isinstance(stage.get(key), dict):
                stage[key] |= {"eval_prompts": 1}
    values["stages"]["ode"]["ode"] |= {"paths": 2, "steps_per_jump": 1}
    return ScratchRecipe.model_validate(values)


def test_the_chain_makes_a_bundle_that_streams(tmp_path: Path) -> None:
    recipe = small_recipe()
    for name in recipe.stages:
        run_stage(recipe, name, tmp_path)
    bundle = recipe.make_bundle(tmp_path)
    assert bundle is not None
    stored = load_file(bundle / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    pipe = pyrf.StreamingPipeline.from_pretrained(str(bundle))
    with pipe.stream("mountains at dusk", seed=1) as stream:
        frames = next(stream).frames
    assert frames.shape == (9, 192, 320, 3)
    assert "dusk" in pipe.card.vocabulary
