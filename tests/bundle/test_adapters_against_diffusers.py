"""Merged weights against diffusers' own, which loads the same file through peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pyrf.bundle.adapters import read_adapter
from pyrf.bundle.names import dit_from_diffusers, dit_to_diffusers
from pyrf.models.dit.merging import MergedWeights
from tests.support import adapters, networks

MODEL = networks.MODEL


def theirs() -> Any:
    """Diffusers' network with the weights of `networks.dit`."""
    from diffusers import WanTransformer3DModel

    network = WanTransformer3DModel(
        num_attention_heads=MODEL.num_heads,
        attention_head_dim=MODEL.head_dim,
        text_dim=MODEL.text_dim,
        freq_dim=MODEL.freq_dim,
        ffn_dim=MODEL.ffn_dim,
        num_layers=MODEL.num_layers,
    )
    network.load_state_dict({dit_to_diffusers(name): t for name, t in networks.dit().state_dict().items()})
    return network


def merged_by_diffusers(files: dict[Path, float]) -> dict[str, Tensor]:
    """Weights under official names, after diffusers has loaded and fused files with their strengths."""
    from diffusers import WanPipeline

    network = theirs()
    for i, (file, strength) in enumerate(files.items()):
        state = WanPipeline.lora_state_dict(str(file))
        network.load_lora_adapter(state, prefix="transformer", adapter_name=f"a{i}")
        network.set_adapters(f"a{i}", 1.0)
        network.fuse_lora(lora_scale=strength, adapter_names=[f"a{i}"])
        network.unload_lora()
    return {dit_from_diffusers(name): tensor.detach() for name, tensor in network.state_dict().items()}


def merged_by_pyrf(files: dict[Path, float], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    model = networks.dit().to(dtype)
    read = [read_adapter(file, str(i), s, MODEL) for i, (file, s) in enumerate(files.items())]
    MergedWeights(model, read).merge({adapter.name: adapter.strength for adapter in read})
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def check(files: dict[Path, float]) -> None:
    ours, expected = merged_by_pyrf(files), merged_by_diffusers(files)
    base = networks.dit().state_dict()
    assert set(ours) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=2e-6)
    assert sum(not ours[name].equal(base[name]) for name in base) >= len(adapters.LINEARS)


@pytest.mark.parametrize("strength", [1.0, 0.3, -0.7])
@pytest.mark.parametrize(
    ("spelling", "alpha"),
    [
        *((spelling, alpha) for spelling in ("comfy", "peft on comfy") for alpha in (None, 1.0, 6.0)),
        ("diffusers", None),  # with one see test_metadata
    ],
)
def test_low_rank(tmp_path: Path, spelling: str, alpha: float | None, strength: float) -> None:
    file = tmp_path / "a.safetensors"
    save_file(adapters.keys(spelling, adapters.factors(), alpha), file)
    check({file: strength})


@pytest.mark.parametrize("alpha", [RANK := adapters.RANK, 1.0])
def test_kohya(tmp_path: Path, alpha: float) -> None:
    """Diffusers asks of this form that it has an alpha and all of the blocks' linears."""
    save_file(adapters.keys("kohya", adapters.factors(), float(alpha)), tmp_path / "a.safetensors")
    check({tmp_path / "a.safetensors": 0.6})


def test_metadata(tmp_path: Path) -> None:
    """Diffusers writes alpha there; its own loader takes it from there too."""
    from diffusers import WanPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    network = theirs()
    network.add_adapter(
        LoraConfig(r=4, lora_alpha=10, target_modules=["to_q", "ffn.net.2"], init_lora_weights=False)
    )
    WanPipeline.save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(network),
        transformer_lora_adapter_metadata={"r": 4, "lora_alpha": 10, "target_modules": ["to_q", "ffn.net.2"]},
    )
    (file,) = tmp_path.iterdir()
    network.fuse_lora(lora_scale=0.5)
    network.unload_lora()
    ours = merged_by_pyrf({file: 0.5})
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(ours[dit_from_diffusers(name)], tensor, rtol=1e-5, atol=2e-6)
    assert not ours["blocks.0.ffn.2.weight"].equal(networks.dit().get_parameter("blocks.0.ffn.2.weight"))


def test_biases_and_the_rest_of_the_network(tmp_path: Path) -> None:
    """What CausVid and AccVideo hold beside the blocks' factors."""
    modules = (*adapters.LINEARS, "time_projection.1")
    tensors = adapters.keys("comfy", adapters.factors(modules))
    generator = torch.Generator().manual_seed(3)
    for module in modules:
        size = networks.dit().get_parameter(f"{module}.bias").shape
        tensors[f"diffusion_model.{module}.diff_b"] = torch.randn(size, generator=generator)
    save_file(tensors, tmp_path / "a.safetensors")
    check({tmp_path / "a.safetensors": 0.8})


def test_two_adapters_add_up(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        parts = adapters.factors(seed=seed)
        save_file(adapters.keys("peft on comfy", parts, 2.0), tmp_path / f"{name}.safetensors")
    check({tmp_path / "a.safetensors": 0.5, tmp_path / "b.safetensors": -1.0})


def test_whole_changes_are_added(tmp_path: Path) -> None:
    """Diffusers leaves most of them out; so the formula itself is the oracle: W0 + strength x diff."""
    base = networks.dit().state_dict()
    generator = torch.Generator().manual_seed(4)
    changes = {
        ("blocks.0.self_attn.q.weight", "blocks.0.self_attn.q.diff"),
        ("blocks.1.norm3.weight", "blocks.1.norm3.diff"),
        ("blocks.1.norm3.bias", "blocks.1.norm3.diff_b"),
        ("blocks.0.modulation", "blocks.0.diff_m"),
        ("head.modulation", "head.diff_m"),
        ("patch_embedding.weight", "patch_embedding.diff"),
        ("text_embedding.2.bias", "text_embedding.2.diff_b"),
    }
    tensors = {key: torch.randn(base[name].shape, generator=generator) for name, key in sorted(changes)}
    save_file({f"diffusion_model.{key}": t for key, t in tensors.items()}, tmp_path / "a.safetensors")
    ours = merged_by_pyrf({tmp_path / "a.safetensors": 0.4})
    expected = dict(base)
    for name, key in changes:
        expected[name] = base[name] + 0.4 * tensors[key]
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_place_and_back(tmp_path: Path, dtype: torch.dtype) -> None:
    """Addresses stay, a change rounds the float32 sum once, and strength 0 is the base byte for byte."""
    file = tmp_path / "a.safetensors"
    parts = adapters.factors((*adapters.LINEARS, *adapters.REST))
    save_file(adapters.keys("comfy", parts, 2.0), file)
    model = networks.dit().to(dtype)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    addresses = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    merged = MergedWeights(model, [read_adapter(file, "a", 1.0, MODEL)])
    for strength in (1.0, 0.25, -2.0, 0.25, 0.0):
        merged.merge({"a": strength})
        assert merged.strengths == {"a": strength}
        state = model.state_dict()
        assert {name: tensor.data_ptr() for name, tensor in state.items()} == addresses
        for module, (down, up) in parts.items():
            name = f"{module}.weight"
            delta = up.double() @ down.double() * (2.0 / adapters.RANK * strength)
            expected = (base[name].double() + delta).float()
            rtol, atol = (8e-3, 1e-3) if dtype == torch.bfloat16 else (1e-5, 2e-6)
            torch.testing.assert_close(state[name].float(), expected, rtol=rtol, atol=atol)
    assert all(tensor.equal(base[name]) for name, tensor in model.state_dict().items())
