"""Names and shapes of every published layout, at full size, and diffusers' output from diffusers' weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrf.bundle.names import (
    dit_from_diffusers,
    dit_to_diffusers,
    t5_from_transformers,
    t5_to_transformers,
    vae_to_diffusers,
)
from pyrf.bundle.weights import CheckpointError, load_weights
from pyrf.config import ModelConfig
from pyrf.models.dit.model import WanModel
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder
from tests.support import networks
from tests.support.golden import tensors

SIZES = {
    "1.3B": ModelConfig(),
    "14B": ModelConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40),
}
PARAMETERS = {"1.3B": 1_418_996_800, "14B": 14_288_491_584}


def official_shapes(config: ModelConfig) -> dict[str, list[int]]:
    """Names and shapes of Wan's official checkpoints, written out."""
    dim, ffn = config.dim, config.ffn_dim
    shapes = {
        "patch_embedding.weight": [dim, 16, 1, 2, 2],
        "patch_embedding.bias": [dim],
        "text_embedding.0.weight": [dim, 4096],
        "text_embedding.0.bias": [dim],
        "text_embedding.2.weight": [dim, dim],
        "text_embedding.2.bias": [dim],
        "time_embedding.0.weight": [dim, 256],
        "time_embedding.0.bias": [dim],
        "time_embedding.2.weight": [dim, dim],
        "time_embedding.2.bias": [dim],
        "time_projection.1.weight": [6 * dim, dim],
        "time_projection.1.bias": [6 * dim],
        "head.modulation": [1, 2, dim],
        "head.head.weight": [64, dim],
        "head.head.bias": [64],
    }
    for i in range(config.num_layers):
        shapes |= {
            f"blocks.{i}.modulation": [1, 6, dim],
            f"blocks.{i}.norm3.weight": [dim],
            f"blocks.{i}.norm3.bias": [dim],
            f"blocks.{i}.ffn.0.weight": [ffn, dim],
            f"blocks.{i}.ffn.0.bias": [ffn],
            f"blocks.{i}.ffn.2.weight": [dim, ffn],
            f"blocks.{i}.ffn.2.bias": [dim],
        }
        for attention in ("self_attn", "cross_attn"):
            for layer in ("q", "k", "v", "o"):
                shapes[f"blocks.{i}.{attention}.{layer}.weight"] = [dim, dim]
                shapes[f"blocks.{i}.{attention}.{layer}.bias"] = [dim]
            shapes[f"blocks.{i}.{attention}.norm_q.weight"] = [dim]
            shapes[f"blocks.{i}.{attention}.norm_k.weight"] = [dim]
    return shapes


@pytest.mark.parametrize("size", SIZES)
def test_full_size_names_and_shapes(size: str) -> None:
    with torch.device("meta"):
        model = WanModel(SIZES[size])
    found = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == official_shapes(SIZES[size])
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == PARAMETERS[size]


def test_the_14b_refuses_the_1_3b() -> None:
    with torch.device("meta"):
        weights = dict(WanModel(SIZES["1.3B"]).state_dict())
        model = WanModel(SIZES["14B"])
    with pytest.raises(
        CheckpointError, match=r"blocks\.30\.modulation.*is missing \(and 269 more\).*expected shape"
    ):
        load_weights(model, weights, "rewardforcing.pt")


def test_names_are_those_of_the_golden_weights() -> None:
    names = {name.replace("blocks.2.", "blocks.29.") for name in tensors("weights")}
    assert names <= set(official_shapes(SIZES["1.3B"]))
    assert {
        n for n in official_shapes(SIZES["1.3B"]) if n.startswith(("blocks.29.", "head", "t", "p"))
    } <= names


@pytest.mark.parametrize("size", SIZES)
def test_full_size_names_are_diffusers(size: str) -> None:
    from diffusers import WanTransformer3DModel

    config = SIZES[size]
    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            ffn_dim=config.ffn_dim,
            num_layers=config.num_layers,
            text_dim=4096,
        )
    shapes = {dit_from_diffusers(name): list(t.shape) for name, t in theirs.state_dict().items()}
    assert shapes == official_shapes(config)
    assert {dit_to_diffusers(name) for name in official_shapes(config)} == set(theirs.state_dict())


@settings(max_examples=12, derandomize=True)
@given(
    heads=st.integers(1, 3),
    head_dim=st.sampled_from([6, 8, 12, 16, 24]),
    ffn_dim=st.sampled_from([16, 40]),
    num_layers=st.integers(1, 2),
    text=st.tuples(st.integers(1, 6), st.sampled_from([8, 20])),
    freq_dim=st.sampled_from([16, 256]),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    timesteps=st.lists(st.floats(0, 1000, width=32), min_size=8, max_size=8),
    per_frame=st.booleans(),
)
def test_diffusers_weights_give_diffusers_output(
    heads: int,
    head_dim: int,
    ffn_dim: int,
    num_layers: int,
    text: tuple[int, int],
    freq_dim: int,
    shape: tuple[int, int, int, int],
    timesteps: list[float],
    per_frame: bool,
) -> None:
    from diffusers import WanTransformer3DModel

    (text_len, text_dim), (batch, frames, rows, columns) = text, shape
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=4,
        out_channels=4,
        text_dim=text_dim,
        freq_dim=freq_dim,
        ffn_dim=ffn_dim,
        num_layers=num_layers,
    )
    networks.randomise(theirs)
    config = ModelConfig(
        dim=heads * head_dim,
        ffn_dim=ffn_dim,
        num_heads=heads,
        num_layers=num_layers,
        text_len=text_len,
        text_dim=text_dim,
        freq_dim=freq_dim,
        in_channels=4,
        out_channels=4,
    )
    with torch.device("meta"):
        ours = WanModel(config)
    load_weights(ours, {dit_from_diffusers(k): v for k, v in theirs.state_dict().items()}, "diffusers")
    latents = torch.randn(batch, frames, 4, 2 * rows, 2 * columns)
    prompt_embeds = torch.randn(batch, text_len, text_dim)
    times = torch.tensor(timesteps)[: batch * frames].view(batch, frames)
    if not per_frame:
        times = times[:, 0]
    their_times = times.repeat_interleave(rows * columns, dim=1) if per_frame else times
    with torch.no_grad():
        expected = theirs(latents.transpose(1, 2), their_times, prompt_embeds).sample.transpose(1, 2)
        found = ours(latents, times, ours.encode_prompt(prompt_embeds))
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)
    back = {dit_to_diffusers(name): tensor for name, tensor in ours.state_dict().items()}
    assert all(torch.equal(tensor, back.pop(name)) for name, tensor in theirs.state_dict().items())
    assert not back


def test_official_names_pass_through_the_inverse_maps() -> None:
    assert all(dit_from_diffusers(name) == name for name in official_shapes(SIZES["1.3B"]))
    assert all(t5_from_transformers(name) == name for name in text_shapes(UMT5Config()))


def text_shapes(config: UMT5Config) -> dict[str, list[int]]:
    """Names and shapes of Wan's UMT5 checkpoint, written out."""
    dim, inner, ffn = config.dim, config.attention_dim, config.ffn_dim
    shapes = {"token_embedding.weight": [config.vocab_size, dim], "norm.weight": [dim]}
    for i in range(config.num_layers):
        shapes |= {
            f"blocks.{i}.norm1.weight": [dim],
            f"blocks.{i}.attn.q.weight": [inner, dim],
            f"blocks.{i}.attn.k.weight": [inner, dim],
            f"blocks.{i}.attn.v.weight": [inner, dim],
            f"blocks.{i}.attn.o.weight": [dim, inner],
            f"blocks.{i}.norm2.weight": [dim],
            f"blocks.{i}.ffn.gate.0.weight": [ffn, dim],
            f"blocks.{i}.ffn.fc1.weight": [ffn, dim],
            f"blocks.{i}.ffn.fc2.weight": [dim, ffn],
            f"blocks.{i}.pos_embedding.embedding.weight": [32, config.num_heads],
        }
    return shapes


def test_text_encoder_names_and_shapes() -> None:
    from transformers import UMT5Config as TheirConfig
    from transformers import UMT5EncoderModel

    config = TheirConfig(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    with torch.device("meta"):
        ours, theirs = UMT5Encoder(UMT5Config()), UMT5EncoderModel(config)
    found = {name: list(tensor.shape) for name, tensor in ours.state_dict().items()}
    assert found == text_shapes(UMT5Config())
    renamed = {t5_to_transformers(name): shape for name, shape in found.items()}
    expected = {name: list(tensor.shape) for name, tensor in theirs.state_dict().items()}
    expected.pop("encoder.embed_tokens.weight", None)
    assert renamed == expected


def test_each_projection_of_the_text_encoder_keeps_its_part() -> None:
    """Some have one shape, so exchanged ones would load: `wi_0` is the branch behind the GELU."""
    parts = {
        "attn.q": "layer.0.SelfAttention.q",
        "attn.k": "layer.0.SelfAttention.k",
        "attn.v": "layer.0.SelfAttention.v",
        "attn.o": "layer.0.SelfAttention.o",
        "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
        "ffn.fc1": "layer.1.DenseReluDense.wi_1",
        "ffn.fc2": "layer.1.DenseReluDense.wo",
        "norm1": "layer.0.layer_norm",
        "norm2": "layer.1.layer_norm",
    }
    for ours, theirs in parts.items():
        assert t5_to_transformers(f"blocks.7.{ours}.weight") == f"encoder.block.7.{theirs}.weight"
        assert t5_from_transformers(f"encoder.block.7.{theirs}.weight") == f"blocks.7.{ours}.weight"


@pytest.mark.parametrize("num_res_blocks", [1, 2, 3])
def test_vae_names_are_diffusers(num_res_blocks: int) -> None:
    """The map reaches every name of AutoencoderKLWan, whatever its depth."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        theirs = set(AutoencoderKLWan(base_dim=4, num_res_blocks=num_res_blocks).state_dict())
    levels, depth = 4, num_res_blocks + 2
    residual = [f"{layer}.{leaf}" for layer in ("residual.2", "residual.6") for leaf in ("weight", "bias")]
    residual += ["residual.0.gamma", "residual.3.gamma", "shortcut.weight", "shortcut.bias"]
    resample = tuple(
        f"{layer}.{leaf}" for layer in ("resample.1", "time_conv") for leaf in ("weight", "bias")
    )
    attention = ("norm.gamma", "to_qkv.weight", "to_qkv.bias", "proj.weight", "proj.bias")
    official = [f"{layer}.{leaf}" for layer in ("conv1", "conv2") for leaf in ("weight", "bias")]
    for half, stack, count in (
        ("encoder", "downsamples", levels * (num_res_blocks + 1) - 1),
        ("decoder", "upsamples", levels * depth - 1),
    ):
        official += [f"{half}.{name}" for name in ("conv1.weight", "conv1.bias", "head.0.gamma")]
        official += [f"{half}.{name}" for name in ("head.2.weight", "head.2.bias")]
        official += [f"{half}.middle.{i}.{name}" for i in (0, 2) for name in residual]
        official += [f"{half}.middle.1.{name}" for name in attention]
        official += [f"{half}.{stack}.{i}.{name}" for i in range(count) for name in (*residual, *resample)]
    mapped = {vae_to_diffusers(name, num_res_blocks=num_res_blocks) for name in official}
    assert theirs <= mapped


def test_unknown_names_stay_for_the_check_to_report() -> None:
    for rename in (
        dit_to_diffusers,
        dit_from_diffusers,
        t5_to_transformers,
        t5_from_transformers,
        vae_to_diffusers,
    ):
        assert rename("img_emb.proj.0.weight") == "img_emb.proj.0.weight"
        assert rename("blocks.0.strange.weight").endswith(".0.strange.weight")
