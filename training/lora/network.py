"""A bundle's network with an adapter that is trained: peft's modules around its linears, all else frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pyrf.bundle.bundle import Bundle
from pyrf.extras import needs
from pyrf.files import whole_file
from pyrf.models.dit.model import PromptCache
from pyrf.models.text.encoder import TextEncoder
from pyrf.training.stages.networks import TextToVideo

ADAPTER_FILE = "adapter.safetensors"
"""What a stage leaves, under Wan's own names: pyrf, ComfyUI and diffusers read it."""
_PREFIX = "diffusion_model."
LINEARS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
"""Of a block, by the ends of their names: what adapters for Wan change."""


class AdaptedTextToVideo(TextToVideo):
    """A bundle's network; only the factors of its adapter are trained.

    Args:
        bundle: loaded in float32, on the CPU.
        rank: of the factors.
        alpha: the change is (alpha / rank) B A.
        seed: of the factor A; B begins with zeros, so that nothing is changed at first.

    Raises:
        MissingExtraError: without peft.
    """

    def __init__(self, bundle: Bundle, *, rank: int, alpha: float, seed: int) -> None:
        super().__init__()
        with needs("lora", "training an adapter"):
            from peft import LoraConfig, inject_adapter_in_model
        self.dit = bundle.transformer().requires_grad_(False)
        self.text: TextEncoder = bundle.text_encoder()
        self.text.network.requires_grad_(False)
        self.alpha = alpha
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LINEARS))  # type: ignore[arg-type]
        inject_adapter_in_model(config, self.dit)
        self._fill(seed)

    def _fill(self, seed: int) -> None:
        """Draw A, as peft does (Kaiming, a = sqrt 5), from a generator of its own."""
        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.dit.named_parameters():
                if ".lora_A." in name:
                    bound = parameter.shape[1] ** -0.5
                    drawn = torch.rand(
                        parameter.shape, generator=generator, dtype=torch.float32, device="cpu"
                    )
                    parameter.copy_((2 * drawn - 1) * bound)

    def prompt(self, captions: list[str]) -> PromptCache:
        return self.dit.encode_prompt(self.encode(captions))

    def encode(self, captions: list[str]) -> Tensor:
        return self.text.encode(captions).clone()  # of inference, which a gradient does not pass

    def set_strength(self, strength: float) -> None:
        """Let the adapter act at a strength; it is trained at 1."""
        for module in self._adapted():
            module.scaling = dict.fromkeys(
                module.scaling, strength * self.alpha / next(iter(module.r.values()))
            )

    def _adapted(self) -> list[Any]:
        return [module for module in self.dit.modules() if hasattr(module, "lora_A")]

    def adapter(self) -> dict[str, Tensor]:
        """The tensors of the adapter's file."""
        tensors: dict[str, Tensor] = {}
        for name, module in self.dit.named_modules():
            if hasattr(module, "lora_A"):
                tensors[f"{_PREFIX}{name}.lora_A.weight"] = _weight(module.lora_A)
                tensors[f"{_PREFIX}{name}.lora_B.weight"] = _weight(module.lora_B)
                tensors[f"{_PREFIX}{name}.alpha"] = torch.tensor(
                    self.alpha, dtype=torch.float32, device="cpu"
                )
        return tensors

    def save(self, folder: Path) -> None:
        with whole_file(folder / ADAPTER_FILE) as temporary:
            save_file(self.adapter(), temporary)


def _weight(factors: Any) -> Tensor:
    (factor,) = factors.values()
    assert isinstance(factor, nn.Linear)
    return factor.weight.detach().contiguous().clone()
