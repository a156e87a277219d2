"""A network small enough for property tests, with weights that leave no part of it idle."""

import torch

from pyrf.config import LatentSize, ModelConfig
from pyrf.loop.sampler import SeededNoise
from pyrf.models.dit.model import WanModel
from tests.reference.loop import random_weights

CONFIG = ModelConfig(
    dim=24,
    ffn_dim=32,
    num_heads=2,
    num_layers=2,
    text_len=3,
    text_dim=8,
    freq_dim=16,
    in_channels=4,
    out_channels=4,
)
HEIGHT, WIDTH = SIZE = LatentSize(4, 6)


def network(
    config: ModelConfig = CONFIG, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[WanModel, dict[str, torch.Tensor]]:
    """A network without gradients, and its weights."""
    model = WanModel(config).to(dtype).requires_grad_(False)
    weights = random_weights({k: v.shape for k, v in model.state_dict().items()}, seed, dtype)
    model.load_state_dict(weights)
    return model, weights


def prompts(batch: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Random prompt_embeds."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CONFIG.text_len, CONFIG.text_dim, generator=generator, dtype=dtype)


class DoubleNoise(SeededNoise):
    """Float64 draws, for exact comparisons."""

    def __call__(self) -> torch.Tensor:
        return super().__call__().double()
