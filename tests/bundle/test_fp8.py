"""Scaled float8 weights give the numbers they stand for, and files that lost their scales are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrf.bundle import load_bundle
from pyrf.bundle.states import read_part
from pyrf.bundle.weights import CheckpointError
from tests.support import networks
from tests.support.bundle_checks import refused

E4M3 = torch.float8_e4m3fn
STATE = dict(networks.dit(seed=1).state_dict())


def packed(
    state: dict[str, Tensor],
    *,
    leaf: str = "scale_weight",
    kind: torch.dtype = E4M3,
    rows: bool = False,
    prefix: str = "",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file as converters write it, and what it stands for."""
    file, meant = {}, {}
    for name, tensor in state.items():
        if tensor.ndim != 2:
            file[prefix + name] = meant[name] = tensor
            continue
        top = tensor.abs().amax(dim=1, keepdim=True) if rows else tensor.abs().max()
        scale = top / torch.finfo(kind).max
        file[prefix + name] = (tensor / scale).to(kind)
        file[prefix + name.removesuffix("weight") + leaf] = scale
        meant[name] = file[prefix + name].float() * scale
    return file, meant


@pytest.mark.parametrize("leaf", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", [E4M3, torch.float8_e5m2])
def test_students(saved: Path, tmp_path: Path, leaf: str, rows: bool, prefix: str, kind: torch.dtype) -> None:
    file, meant = packed(STATE, leaf=leaf, kind=kind, rows=rows, prefix=prefix)
    path = tmp_path / "s.safetensors"
    save_file(file | {f"{prefix}scaled_fp8": torch.zeros(2, dtype=kind)}, path)
    found = load_bundle(saved, student=path).transformer().state_dict()
    assert set(found) == set(meant)
    for name, tensor in meant.items():
        assert torch.equal(found[name], tensor)


def test_scales_of_activations_and_formats_are_left(tmp_path: Path) -> None:
    file, meant = packed(STATE, leaf="weight_scale")
    said = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    for name in list(file):
        if name.endswith(".weight_scale"):
            stem = name.removesuffix("weight_scale")
            file |= {f"{stem}input_scale": torch.ones(()), f"{stem}comfy_quant": said.clone()}
    save_file(file, tmp_path / "s.safetensors")
    found = read_part(tmp_path / "s.safetensors", "transformer")
    assert all(torch.equal(found[name], tensor) for name, tensor in meant.items())
    assert set(found) == set(meant)


def test_a_text_encoder(copied: Path) -> None:
    path = copied / "text_encoder" / "model.safetensors"
    file, meant = packed(load_file(path))
    beside = {"scaled_fp8": torch.zeros(0, dtype=E4M3), "spiece_model": torch.zeros(9, dtype=torch.uint8)}
    save_file(file | beside, path)
    found = load_bundle(copied).text_encoder().network.state_dict()
    assert torch.equal(found["token_embedding.weight"], meant["shared.weight"])
    assert torch.equal(
        found["blocks.1.attn.q.weight"], meant["encoder.block.1.layer.0.SelfAttention.q.weight"]
    )


def test_plain_float8_is_as_it_is(saved: Path, tmp_path: Path) -> None:
    """A cast without scales, as the unscaled files of ComfyUI."""
    file = {name: tensor.to(E4M3) if tensor.ndim == 2 else tensor for name, tensor in STATE.items()}
    save_file(file, tmp_path / "s.safetensors")
    found = load_bundle(saved, student=tmp_path / "s.safetensors").transformer().state_dict()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in file.items())


@pytest.mark.parametrize("kind", [E4M3, torch.float8_e5m2])
def test_lost_scales_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    file, _ = packed(STATE, kind=kind)
    save_file({n: t for n, t in file.items() if not n.endswith("scale_weight")}, tmp_path / "s.safetensors")
    with pytest.raises(CheckpointError, match="that were scaled, without their scales; give"):
        read_part(tmp_path / "s.safetensors", "transformer")


def test_one_lost_scale_is_refused(saved: Path, tmp_path: Path) -> None:
    file, _ = packed(STATE)
    del file["blocks.0.ffn.0.scale_weight"]
    save_file(file, tmp_path / "s.safetensors")
    message = refused(saved, student=tmp_path / "s.safetensors")
    assert "blocks.0.ffn.0.weight is scaled float8 without its scale" in message


def test_a_scale_of_another_shape_is_refused(tmp_path: Path) -> None:
    file, _ = packed(STATE)
    file["blocks.0.ffn.0.scale_weight"] = torch.ones(2, 2)
    save_file(file, tmp_path / "s.safetensors")
    with pytest.raises(
        CheckpointError, match=r"blocks\.0\.ffn\.0\.weight \[48, 24\] has a scale of shape \[2, 2\]"
    ):
        read_part(tmp_path / "s.safetensors", "transformer")


@pytest.mark.parametrize("beside", ["weight_scale_2", "comfy_quant"])
def test_other_quantisations_are_refused(saved: Path, tmp_path: Path, beside: str) -> None:
    file, _ = packed(STATE, leaf="weight_scale")
    said = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    save_file(file | {f"blocks.0.ffn.0.{beside}": said}, tmp_path / "s.safetensors")
    message = refused(saved, student=tmp_path / "s.safetensors")
    assert "blocks.0.ffn.0 is quantised in a way that is not read" in message


def test_scales_are_no_weights(saved: Path, tmp_path: Path) -> None:
    weight = STATE["blocks.0.ffn.0.weight"].to(torch.float8_e8m0fnu)
    save_file({**STATE, "blocks.0.ffn.0.weight": weight}, tmp_path / "s.safetensors")
    assert "found torch.float8_e8m0fnu" in refused(saved, student=tmp_path / "s.safetensors")
