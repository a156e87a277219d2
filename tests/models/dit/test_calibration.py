"""What enters the linears of the blocks while a model runs."""

import torch

from pyrf.models.dit.calibration import largest_inputs
from tests.support import networks


def test_the_largest_of_all_runs_is_kept_and_nothing_is_left_behind() -> None:
    model = networks.dit()
    hidden = torch.randn(1, 3, networks.MODEL.dim)

    def run() -> None:
        for scale in (1.0, 3.0, -2.0):
            model.blocks[0].self_attn.q(scale * hidden)
            model.blocks[0].cross_attn.k(100 * hidden)
            model.head.head(hidden)

    largest = largest_inputs(model, run)
    assert largest == {"blocks.0.self_attn.q": (3 * hidden).abs().max().item()}
    run()
    assert not any(module._forward_pre_hooks for module in model.modules())
