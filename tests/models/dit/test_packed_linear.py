"""Linears packed for a CPU: the numbers of torch's, and where they are used."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pyrf.backends.torch.backend import TorchBackend
from pyrf.models.dit.model import WanModel
from pyrf.models.dit.packed_linear import PackedLinear, pack_linears
from pyrf.ops.gelu import gelu_tanh
from tests.reference.loop import random_weights
from tests.support import networks

WIDE = replace(networks.MODEL, dim=256, ffn_dim=320, num_heads=4, num_layers=1)
NARROW = replace(networks.MODEL, dim=128, ffn_dim=512, num_heads=4, num_layers=1)
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")


@pytest.fixture(autouse=True)
def _wide_vectors(monkeypatch):
    """Weights are packed where that gains; they compute the same on any processor."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def model(config=WIDE):
    network = WanModel(config).eval().requires_grad_(False)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    network.load_state_dict(random_weights(shapes, 0, torch.float32))
    return network


@pytest.mark.parametrize("shape", [(5, 40), (2, 7, 40), (1, 0, 40)])
@pytest.mark.parametrize("gelu", [False, True])
def test_a_packed_linear_is_the_linear(shape, gelu):
    torch.manual_seed(0)
    linear = nn.Linear(40, 24)
    x = torch.randn(shape)
    strided = torch.stack((x, -x), -2)[..., 0, :]
    packed = PackedLinear(linear, gelu)
    with torch.inference_mode():
        expected = gelu_tanh(linear(x)) if gelu else linear(x)
        for given in (x, strided):
            torch.testing.assert_close(packed(given), expected, atol=2e-6, rtol=0)


def test_a_packed_model_computes_the_same():
    plain, packed = model(), model()
    pack_linears(packed)
    assert sum(isinstance(module, PackedLinear) for module in packed.modules()) == 10
    assert not any(isinstance(module, nn.Linear) for module in packed.blocks.modules())
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 3, WIDE.in_channels, 4, 6, generator=generator)
    embeds = torch.randn(2, WIDE.text_len, WIDE.text_dim, generator=generator)
    timesteps = torch.tensor([750.0, 250.0])
    with torch.inference_mode():
        expected, got = (each(latents, timesteps, each.encode_prompt(embeds)) for each in (plain, packed))
    torch.testing.assert_close(got, expected, atol=2e-5 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("config", "dtype", "packed"),
    [
        (WIDE, torch.float32, 10),
        (NARROW, torch.float32, 2),  # the feed-forward's
        (networks.MODEL, torch.float32, 0),
        (WIDE, torch.bfloat16, 0),
    ],
)
def test_the_torch_backend_packs_what_gains(config, dtype, packed):
    backend = TorchBackend(model(config).to(dtype), networks.codec(), networks.STREAM)
    assert sum(isinstance(module, PackedLinear) for module in backend.model.modules()) == packed


@pytest.mark.parametrize("capability", ["DEFAULT", "AVX2"])
def test_another_processor_keeps_torchs_linears(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    network = model()
    pack_linears(network)
    assert not any(isinstance(module, PackedLinear) for module in network.modules())
