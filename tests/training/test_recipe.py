"""The whole tiny chain, a few steps a stage, and recipes that cannot be run."""

from pyrf.training.recipe import Recipe, load_recipe


def small_recipe() -> Recipe:
    """The bundled recipe with everything cut down; two steps a stage."""
    values = load_recipe("tiny").model_dump(mode="json")
    values |= {"scenes": 10, "threads": 1}
    values["stages"]["codec"]["codec"] = {"encoder_width": 8, "decoder_widths": [8, 8, 8, 8], "blocks": 1}
    values["stages"]["chunk"]["network"] |= {"dim": 32, "ffn_dim": 32, "num_heads": 2, "num_layers": 1}
    for stage in values["stages"].values():
        stage["train"] |= {"steps": 2, "batch": 2, "checkpoint_minutes": 0, "compile": False}
        for key in ("teacher", "causal", "ode", "dmd"):
            if isinstance(stage.get(key), dict):
                stage[key] |= {"eval_prompts": 6}
    values["stages"]["ode"]["ode"] |= {"paths": 2, "steps_per_jump": 1}
    return Recipe.model_validate(values)
