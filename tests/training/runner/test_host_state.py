"""A training begins the same whatever the program around it has set, and puts all of it back."""

import pytest
import torch

from pyrf.training.runner.host_state import of_a_training
from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo
from tests.support.host_states import STATES

SETTINGS = NetworkSettings(dim=32, ffn_dim=32, num_heads=2, num_layers=1, text_dim=32)


def start() -> dict[str, torch.Tensor]:
    with of_a_training(seed=3, threads=1):
        network = ScratchTextToVideo(SETTINGS, ("red", "circle"))
        network.encode(["red circle"])
        return network.state_dict()


@pytest.mark.parametrize("state", [name for name in STATES if not name.startswith("inference mode")])
def test_a_training_begins_the_same(state: str) -> None:
    expected = start()
    with STATES[state]():
        torch.manual_seed(11)
        seed, threads = torch.initial_seed(), torch.get_num_threads()
        dtype, device = torch.get_default_dtype(), torch.get_default_device()
        found = start()
        assert (torch.initial_seed(), torch.get_num_threads()) == (seed, threads)
        assert (torch.get_default_dtype(), torch.get_default_device()) == (dtype, device)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert {(t.dtype, t.device.type) for t in found.values()} == {(torch.float32, "cpu")}
