"""Random adapters of small networks, in every public spelling."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from pyrf.bundle.names import dit_to_diffusers
from pyrf.models.dit.model import WanModel
from tests.support import networks

LINEARS = tuple(
    f"blocks.{i}.{name}"
    for i in range(networks.MODEL.num_layers)
    for name in (
        *(f"{kind}.{one}" for kind in ("self_attn", "cross_attn") for one in "qkvo"),
        "ffn.0",
        "ffn.2",
    )
)
REST = ("time_projection.1", "head.head", "text_embedding.0", "time_embedding.2")
RANK = 3

SPELLINGS = {
    "comfy": ("diffusion_model.{}.lora_down.weight", "diffusion_model.{}.lora_up.weight"),
    "peft on comfy": ("diffusion_model.{}.lora_A.weight", "diffusion_model.{}.lora_B.weight"),
    "bare": ("{}.lora_A.weight", "{}.lora_B.weight"),
    "with an adapter's name": (
        "base_model.model.{}.lora_A.default.weight",
        "base_model.model.{}.lora_B.default.weight",
    ),
    "without .weight": ("diffusion_model.{}.lora_A", "diffusion_model.{}.lora_B"),
    "without .weight, named": ("{}.lora_A.default", "{}.lora_B.default"),
    "_lora": ("diffusion_model.{}_lora.down.weight", "diffusion_model.{}_lora.up.weight"),
    ".lora": ("diffusion_model.{}.lora.down.weight", "diffusion_model.{}.lora.up.weight"),
    "lora_linear_layer": ("{}.lora_linear_layer.down.weight", "{}.lora_linear_layer.up.weight"),
    "wrapped": ("model._fsdp_wrapped_module.{}.lora_A.weight", "model._fsdp_wrapped_module.{}.lora_B.weight"),
    "kohya": ("lora_unet_{_}.lora_down.weight", "lora_unet_{_}.lora_up.weight"),
    "diffusers": ("transformer.{theirs}.lora_A.weight", "transformer.{theirs}.lora_B.weight"),
    "diffusers, named": (
        "transformer.{theirs}.lora_A.default.weight",
        "transformer.{theirs}.lora_B.default.weight",
    ),
    "kohya on diffusers": ("lora_unet_{theirs_}.lora_down.weight", "lora_unet_{theirs_}.lora_up.weight"),
}
"""Names of the factors A and B of a module."""


def spelled(pattern: str, module: str) -> str:
    """A module's key: {} is its name, {theirs} that of diffusers, and {_} and {theirs_} have no dots."""
    theirs = dit_to_diffusers(f"{module}.weight").removesuffix(".weight")
    for sign, name in (
        ("{}", module),
        ("{_}", module.replace(".", "_")),
        ("{theirs}", theirs),
        ("{theirs_}", theirs.replace(".", "_")),
    ):
        pattern = pattern.replace(sign, name)
    return pattern


def alpha_key(spelling: str, module: str) -> str:
    """Where a spelling keeps alpha."""
    prefix = re.sub(
        r"[._]lora(_A|_down|_linear_layer|)(\.default)?(\.down)?(\.weight)?$", "", SPELLINGS[spelling][0]
    )
    return f"{spelled(prefix, module)}.alpha"


def factors(
    modules: tuple[str, ...] = LINEARS, *, seed: int = 0, model: WanModel | None = None, rank: int = RANK
) -> dict[str, tuple[Tensor, Tensor]]:
    """A [rank, in] and B [out, rank] of each module."""
    model = networks.dit() if model is None else model
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for module in modules:
        outer, inner = model.get_parameter(f"{module}.weight").shape
        found[module] = (
            torch.randn(rank, inner, generator=generator) * 0.2,
            torch.randn(outer, rank, generator=generator) * 0.2,
        )
    return found


def keys(
    spelling: str, parts: dict[str, tuple[Tensor, Tensor]], alpha: float | None = None
) -> dict[str, Tensor]:
    """The tensors of a file in a spelling."""
    return dict(_keys(spelling, parts, alpha))


def _keys(
    spelling: str, parts: dict[str, tuple[Tensor, Tensor]], alpha: float | None
) -> Iterator[tuple[str, Tensor]]:
    for module, factors in parts.items():
        for pattern, factor in zip(SPELLINGS[spelling], factors):
            yield spelled(pattern, module), factor.contiguous()
        if alpha is not None:
            yield alpha_key(spelling, module), torch.tensor(alpha)
