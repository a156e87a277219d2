"""The network against the official one, and what training and streaming ask of it beside."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pyrf.config import LatentSize
from pyrf.loop.rope import rope_table
from pyrf.models.dit import layers
from pyrf.models.dit.attention import BidirectionalAttention, PartsAttention, PrefixAttention
from pyrf.models.dit.layers import FeedForward
from pyrf.models.dit.model import WanModel
from pyrf.models.dit.parts import teacher_forcing_parts
from pyrf.ops import add_norm
from pyrf.ops.gelu import gelu_tanh
from tests.support.golden import TOLERANCE, model, tensors
from tests.support.masks import MaskedAttention, block_causal_mask
from tests.support.tiny import CONFIG, HEIGHT, WIDTH, prompts
from tests.support.tiny import network as tiny_network

GOLDEN_SIZE = (8, 12)
TOKENS = 24


@pytest.fixture(scope="module")
def network():
    return model()


def frames_first(x: torch.Tensor) -> torch.Tensor:
    """Recorded [B, C, F, H, W] to our [B, F, C, H, W]."""
    return x.transpose(1, 2).contiguous()


def rotations(model: WanModel, frame_positions, size=(HEIGHT, WIDTH)):
    return rope_table(model.config, frame_positions, LatentSize(*size), dtype=model.dtype)


def test_teacher(network):
    data = tensors("teacher_bidirectional")
    prompt = network.encode_prompt(data["prompt_embeds"])
    latents = frames_first(data["latent"])
    for timestep, expected in zip(data["timesteps"], data["flow_pred"]):
        flow = network(latents, timestep[None], prompt)[0].transpose(0, 1)
        torch.testing.assert_close(flow, expected, atol=TOLERANCE, rtol=0)


CAUSAL = [
    ("causal12.block3.localnone", {"block_frames": 3}),
    ("causal12.block3.local9", {"block_frames": 3, "window_frames": 9}),
    ("causal12.block3.local6", {"block_frames": 3, "window_frames": 6}),
    ("causal12.block3.local3", {"block_frames": 3, "window_frames": 3}),
    ("causal12.block1.local4", {"block_frames": 1, "window_frames": 4}),
    ("causal7.firstframe.block3.localnone", {"block_frames": 3, "first_frame": True}),
]


@pytest.mark.parametrize(("name", "settings"), CAUSAL)
def test_causal_forward(network, name, settings):
    data = tensors("train_forward")
    frames = 7 if name.startswith("causal7") else 12
    mask = block_causal_mask(frames, TOKENS, **settings)
    prompt = network.encode_prompt(data["prompt_embeds"])
    attention = MaskedAttention(rotations(network, range(frames), GOLDEN_SIZE), mask)
    flow = network(frames_first(data[f"x{frames}"]), data[f"t{frames}"], prompt, attention=attention)
    torch.testing.assert_close(flow[0].transpose(0, 1), data[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("augmented", [False, True])
def test_teacher_forcing(network, augmented):
    data = tensors("train_forward")
    clean, noisy = frames_first(data["clean6"]), frames_first(data["x6"])
    clean_t = data["aug_t6"] if augmented else torch.zeros_like(data["t6"])
    flow = network(
        torch.cat((clean[:, :3], noisy), 1),  # nothing sees the last clean chunk
        torch.cat((clean_t[:, :3], data["t6"]), 1),
        network.encode_prompt(data["prompt_embeds"]),
        attention=PartsAttention(
            rotations(network, [*range(3), *range(6)], GOLDEN_SIZE), teacher_forcing_parts(2, 3 * TOKENS)
        ),
    )[0, 3:]
    expected = data["tf6.block3.aug40" if augmented else "tf6.block3.aug_none"]
    torch.testing.assert_close(flow.transpose(0, 1), expected, atol=TOLERANCE, rtol=0)


@pytest.fixture
def small():
    """A tiny float64 network, one batch of two videos, and its prompt."""
    generator = torch.Generator().manual_seed(3)
    model = tiny_network()[0].requires_grad_(True)
    latents = torch.randn(2, 3, 4, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    return model, latents, model.encode_prompt(prompts(2))


def test_one_timestep_a_video_is_the_same_for_all_its_frames(small):
    model, latents, prompt = small
    timesteps = torch.tensor([700.0, 20.5], dtype=torch.float64)
    expected = model(latents, timesteps[:, None].expand(2, 3), prompt)
    torch.testing.assert_close(model(latents, timesteps, prompt), expected, atol=1e-12, rtol=0)


def test_modulations_formed_ahead_change_nothing(small):
    model, latents, prompt = small
    timesteps = torch.tensor([700.0], dtype=torch.float64)
    ahead = model.modulate(model.embed_timesteps(timesteps))
    torch.testing.assert_close(
        model(latents, ahead, prompt), model(latents, timesteps.expand(2), prompt), atol=1e-12, rtol=0
    )


def test_only_position_differences_matter(small):
    model, latents, prompt = small
    timesteps = torch.tensor([700.0, 20.5], dtype=torch.float64)
    far = BidirectionalAttention(rotations(model, range(10**6, 10**6 + 3)))
    far = model(latents, timesteps, prompt, attention=far)
    torch.testing.assert_close(far, model(latents, timesteps, prompt), atol=1e-8, rtol=0)


def test_an_empty_prefix_is_bidirectional(small):
    model, latents, prompt = small
    empty = torch.zeros(2, CONFIG.num_heads, 0, CONFIG.head_dim, dtype=torch.float64)
    prefix = PrefixAttention(rotations(model, range(3)), [(empty, empty)] * CONFIG.num_layers)
    timesteps = torch.tensor([700.0, 20.5], dtype=torch.float64)
    torch.testing.assert_close(
        model(latents, timesteps, prompt, attention=prefix), model(latents, timesteps, prompt)
    )


def test_every_weight_gets_a_gradient(small):
    model, latents, prompt = small
    model(latents, torch.tensor([700.0, 20.5], dtype=torch.float64), prompt).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    assert not idle


def test_a_new_network_predicts_nothing_and_can_learn():
    torch.manual_seed(0)
    model = WanModel(CONFIG)
    latents, timesteps = torch.randn(2, 3, 4, HEIGHT, WIDTH), torch.tensor([500.0, 900.0])
    flow = model(latents, timesteps, model.encode_prompt(prompts(2).float()))
    assert flow.abs().max() == 0
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        flow = model(latents, timesteps, model.encode_prompt(prompts(2).float()))
        loss = (flow + latents).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_a_block_compiles_whole(small):
    model, latents, prompt = small
    x, time = model.embed_latents(latents), model.embed_timesteps(torch.tensor([700.0, 20.5]))
    attention = BidirectionalAttention(rotations(model, range(3)))
    arguments = (x, time.projected, prompt.keys[0], prompt.values[0], attention)
    block = model.blocks[0]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), block(*arguments))


@pytest.mark.parametrize("timesteps", [[700.0], [700.0, 20.5]])
def test_sums_and_norms_in_one_pass(small, timesteps, monkeypatch):
    """Where all tokens share a timestep, nothing is recorded, and no parameter has another dtype."""
    model, latents, prompt = small
    timesteps = torch.tensor(timesteps, dtype=torch.float64)
    expected = model(latents, timesteps.expand(2), prompt).detach()
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return add_norm(*args, **kwargs)

    monkeypatch.setattr(layers, "add_norm", counted)
    time = model.modulate(model.embed_timesteps(timesteps))
    with torch.no_grad():
        got = model(latents, time, prompt)
        assert not layers._is_one_pass(latents.bfloat16(), model.blocks[0].norm3.weight)
    assert len(calls) == (2 * CONFIG.num_layers if len(timesteps) == 1 else 0)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    assert model(latents, time, prompt).requires_grad
    assert len(calls) <= 2 * CONFIG.num_layers


@pytest.mark.parametrize(
    ("dtype", "grad", "fused"),
    [(torch.bfloat16, False, 1), (torch.bfloat16, True, 0), (torch.float32, False, 0)],
)
def test_the_product_applies_gelu_on_a_gpu(dtype, grad, fused):
    calls = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            calls.append(op)
            return op(*args, **(kwargs or {}))

    with torch.device("meta"):
        feed_forward = FeedForward(16, 48)
    with FakeTensorMode(), torch.set_grad_enabled(grad):
        shapes = {name: p.shape for name, p in feed_forward.named_parameters()}
        weights = {n: torch.empty(shape, device="cuda:0", dtype=dtype) for n, shape in shapes.items()}
        with Calls():
            out = torch.func.functional_call(
                feed_forward, weights, torch.empty(2, 5, 16, device="cuda:0", dtype=dtype)
            )
    assert calls.count(torch.ops.aten._addmm_activation.default) == fused
    assert calls.count(torch.ops.aten.gelu.default) == 1 - fused
    assert (tuple(out.shape), out.dtype) == ((2, 5, 16), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gelu(dtype):
    x = torch.linspace(-12, 12, 2001, dtype=torch.float64)
    expected = torch.nn.functional.gelu(x, approximate="tanh")
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            got = gelu_tanh(x.to(dtype)).double()
        atol = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 0.05}[dtype]
        torch.testing.assert_close(got, expected, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": torch.zeros(2, 3, 5, 4, 6)}, "latents must be"),
        ({"latents": torch.zeros(2, 3, 4, 5, 6)}, "even height and width"),
        ({"latents": torch.zeros(1, 3, 4, 4, 6)}, "prompt must hold 1 rows"),
        ({"timesteps": torch.zeros(2, 2)}, "timesteps must be"),
        ({"timesteps": torch.zeros(3)}, "timesteps must be"),
        ({"timesteps": torch.tensor(3.0)}, "timesteps must be"),
        ({"attention": BidirectionalAttention(torch.zeros(12, 6, 2))}, "18 tokens, but rotations for 12"),
    ],
)
def test_refuses(small, change, message):
    model, latents, prompt = small
    arguments = {"latents": latents, "timesteps": torch.zeros(2), "prompt": prompt} | change
    with pytest.raises(ValueError, match=message):
        model(**arguments)


@pytest.mark.parametrize("shape", [(3, 8), (1, 4, 8), (1, 3, 7)])
def test_refuses_prompts_of_another_shape(shape):
    with pytest.raises(ValueError, match="prompt_embeds must be"):
        tiny_network()[0].encode_prompt(torch.zeros(shape))
