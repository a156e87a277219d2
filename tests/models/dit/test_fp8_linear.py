"""Linears in e4m3: rows keep their scale, a row of zeros is no NaN, and the blocks' weights take half."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pyrf import StreamingPipeline
from pyrf.backends.torch.backend import TorchBackend
from pyrf.models.dit.fp8_linear import Fp8Linear, quantise_linears
from pyrf.models.dit.layers import TanhGELU
from pyrf.models.dit.model import WanModel
from pyrf.ops import quantise_rows
from tests.kernels.emulator import has_compiler
from tests.reference.loop import random_weights
from tests.support import networks
from tests.support.emulated_native import EmulatedKernels, cpu_tensors_take_the_cuda_path

CONFIG = replace(networks.MODEL, dim=128, ffn_dim=512, num_heads=4, num_layers=2)


def model(dtype=torch.float32):
    network = WanModel(CONFIG).eval().requires_grad_(False)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    network.load_state_dict(random_weights(shapes, 0, torch.float32))
    return network.to(dtype)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_rows_of_any_size_keep_three_bits(size):
    x = size * draw(7, 64) * torch.logspace(-3, 3, 7)[:, None]
    x[:, 5] *= 1e-5  # below what e4m3 resolves beside the row's largest
    rounded, scale = quantise_rows(x)
    error = (rounded.float() * scale - x).abs()
    largest = x.abs().amax(-1, keepdim=True)
    assert (error <= torch.maximum(x.abs() * 2**-4, largest * 2**-10 / 448)).all()
    assert torch.equal(rounded.float().abs().amax(-1), torch.full((7,), 448.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_zeros_are_zeros_and_not_nan(dtype):
    linear = nn.Linear(32, 16).to(dtype)
    with torch.no_grad():
        linear.weight[3] = 0
    x = draw(2, 5, 32).to(dtype)
    x[:, 1] = 0
    with torch.inference_mode():
        got = Fp8Linear(linear)(x)
    assert got.isfinite().all()
    assert (got.shape, got.dtype) == ((2, 5, 16), dtype)
    assert torch.equal(got[..., 3], linear.bias[3].expand(2, 5))
    assert torch.equal(got[:, 1], linear.bias.expand(2, 16))


def test_nan_is_not_hidden():
    x = draw(3, 32)
    x[1, 4] = float("nan")
    with torch.inference_mode():
        got = Fp8Linear(nn.Linear(32, 16))(x)
    assert got[1].isnan().all()
    assert got[[0, 2]].isfinite().all()


def test_it_is_the_linear_of_rounded_numbers():
    linear, x = nn.Linear(64, 48), draw(10, 64)
    with torch.inference_mode():
        got, exact = Fp8Linear(linear)(x), linear(x)
        (a, a_scale), (w, w_scale) = quantise_rows(x), quantise_rows(linear.weight)
        expected = (a.double() * a_scale) @ (w.double() * w_scale).T + linear.bias
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)
    assert 0.005 < ((got - exact).norm() / exact.norm()).item() < 0.06


def test_a_gpu_s_product_is_asked_for_as_it_wants_it(monkeypatch):
    """Traced on fake tensors of a GPU: torch checks dtypes, layouts and scales there, too."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    called, product = [], torch._scaled_mm

    def multiply(*arguments, **options):
        called.append(options)
        return product(*arguments, **options)

    monkeypatch.setattr(torch, "_scaled_mm", multiply)
    with FakeTensorMode(), torch.no_grad():
        with torch.device("meta"):
            linear = nn.Linear(64, 48, dtype=torch.bfloat16)
        for name in ("weight", "bias"):
            shape = linear.get_parameter(name).shape
            empty = torch.empty(shape, dtype=torch.bfloat16, device="cuda")
            linear.register_parameter(name, nn.Parameter(empty))
        ours = Fp8Linear(linear)
        got = ours(torch.empty(2, 10, 64, dtype=torch.bfloat16, device="cuda"))
    assert (got.shape, got.dtype, got.device.type) == ((2, 10, 48), torch.bfloat16, "cuda")
    assert len(called) == 1


def test_an_adapter_s_new_weight_is_rounded_anew():
    linear, other = nn.Linear(64, 48), nn.Linear(64, 48)
    ours, expected, x = Fp8Linear(linear), Fp8Linear(other), draw(10, 64)
    with torch.inference_mode():
        ours.load("weight", other.weight)
        ours.load("bias", other.bias)
        assert torch.equal(ours(x), expected(x))


def test_the_blocks_take_half_of_bfloat16_s_bytes():
    def held(network):
        return sum(x.nbytes for x in (*network.blocks.parameters(), *network.blocks.buffers()))

    wide, narrow = model(torch.bfloat16), model(torch.bfloat16)
    quantise_linears(narrow)
    cross = sum(
        x.nbytes for b in wide.blocks for n in "kv" for x in b.cross_attn.get_submodule(n).parameters()
    )
    rounded = held(wide) - cross
    assert held(narrow) - cross < 0.55 * rounded
    kinds = {type(module) for block in narrow.blocks for module in (block.ffn[0], block.self_attn.q)}
    assert kinds == {Fp8Linear}
    outside = [m for name, m in narrow.named_modules() if isinstance(m, nn.Linear) and "blocks" not in name]
    assert len(outside) == 6


def test_a_rounded_model_is_near_the_model():
    plain, rounded = model(), model()
    quantise_linears(rounded)
    latents = draw(2, 3, CONFIG.in_channels, 4, 6)
    embeds, timesteps = draw(2, CONFIG.text_len, CONFIG.text_dim), torch.tensor([750.0, 250.0])
    with torch.inference_mode():
        expected, got = (each(latents, timesteps, each.encode_prompt(embeds)) for each in (plain, rounded))
    assert 1e-3 < ((got - expected).norm() / expected.norm()).item() < 0.1


def run(network, dtype, timesteps=(750.0,)):
    latents = draw(2, 3, CONFIG.in_channels, 4, 6).to(dtype)
    embeds = draw(2, CONFIG.text_len, CONFIG.text_dim).to(dtype)
    with torch.inference_mode():
        return network(latents, torch.tensor(timesteps), network.encode_prompt(embeds))


@pytest.mark.parametrize("timesteps", [(750.0,), (750.0, 250.0)])
def test_rows_rounded_ahead_give_the_bits_of_linears_that_round_for_themselves(timesteps):
    """In bfloat16, where a norm by itself and one after a sum are the same code on a CPU."""
    ahead, apart = model(torch.bfloat16), model(torch.bfloat16)
    for network in (ahead, apart):
        quantise_linears(network)
    for block in apart.blocks:
        block.quantises = False
        block.ffn[1] = TanhGELU()
    assert torch.equal(run(ahead, torch.bfloat16, timesteps), run(apart, torch.bfloat16, timesteps))


@pytest.mark.skipif(not has_compiler(), reason="the emulator needs a C++ compiler")
def test_nothing_but_the_attentions_results_is_rounded_in_a_pass_of_its_own(monkeypatch):
    """Of a block: norm; o; sum and norm; cross-attention's o; sum and norm; GELU."""
    network = model(torch.bfloat16)
    quantise_linears(network)
    expected = run(network, torch.bfloat16)
    with cpu_tensors_take_the_cuda_path(monkeypatch, EmulatedKernels()) as emulator:
        got = run(network, torch.bfloat16)
    kernels = ["add_norm", "quantise_rows", "add_norm", "quantise_rows", "add_norm", "quantise_rows"]
    assert emulator.calls == CONFIG.num_layers * kernels
    assert ((got - expected).norm() / expected.norm()).item() < 0.05


@pytest.mark.filterwarnings("ignore:a CPU only imitates")
def test_a_pipeline_streams_with_it(random_bundle):
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), precision="fp8")
    assert isinstance(pipe.model.backend, TorchBackend)
    assert any(isinstance(module, Fp8Linear) for module in pipe.model.backend.model.modules())
    assert pipe("a red circle", num_frames=21, seed=0).frames.std() > 0
