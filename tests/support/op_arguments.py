"""Arguments of the ops, for the tests of this folder."""

from collections.abc import Callable
from typing import Any

import torch

from pyrf.config import LatentSize, ModelConfig
from pyrf.loop.rope import rope_table
from pyrf.ops import ema_sink_update, norm_rope_append, ring_attention
from pyrf.ops.ema_sink_update import MASTER_DTYPES

BATCH, HEADS, DIM, TOKENS, SLOTS = 2, 2, 12, 6, 3


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cache(dtype, dim=DIM, seed=5):
    shape = (BATCH, HEADS, SLOTS * TOKENS, dim)
    return draw(*shape, dtype=dtype, seed=seed), draw(*shape, dtype=dtype, seed=seed + 1)


def append_arguments(dtype=torch.float32, dim=DIM, fused=False):
    """Arguments of norm_rope_append; q, k and v as views of one fused product, or apart."""
    qkv = draw(BATCH, TOKENS, 3 * HEADS * dim, dtype=dtype)
    q, k, v = qkv.chunk(3, -1)
    if not fused:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    weights = [1 + 0.1 * draw(HEADS * dim, dtype=dtype, seed=seed) for seed in (1, 2)]
    model = ModelConfig(dim=HEADS * dim, num_heads=HEADS)
    rope = rope_table(model, [7, 8], LatentSize(2, 6), dtype=dtype)
    return [q, k, v, *weights, 1e-6, rope, torch.tensor(1), *cache(dtype, dim)]


def attention_arguments(dtype=torch.float32, dim=DIM):
    return [draw(BATCH, HEADS, TOKENS, dim, dtype=dtype), *cache(dtype, dim), 2 * TOKENS]


def sink_arguments(dtype=torch.float32, dim=DIM, alpha=0.9):
    """Arguments of ema_sink_update, in the state that a first chunk leaves."""
    keys, values = cache(dtype, dim)
    masters: list[torch.Tensor | None] = [None, None]
    if dtype == torch.bfloat16:
        masters = [torch.zeros(BATCH, HEADS, TOKENS, dim, dtype=torch.int16) for _ in range(2)]
    elif dtype in MASTER_DTYPES:
        masters = [x[:, :, :TOKENS].float() for x in (keys, values)]
    angles = torch.tensor([3.0, 0.1], dtype=torch.float64)
    turn = torch.stack((angles.cos(), angles.sin()), -1)
    turn = turn.to(torch.float64 if dtype == torch.float64 else torch.float32)
    return [keys, values, *masters, torch.tensor(2), turn, TOKENS, alpha]


OPS: dict[str, tuple[Callable[..., Any], Callable[..., list[Any]]]] = {
    "norm_rope_append": (norm_rope_append, append_arguments),
    "ring_attention": (ring_attention, attention_arguments),
    "ema_sink_update": (ema_sink_update, sink_arguments),
}


def change(arguments, index, value):
    """The arguments with one of them replaced, or changed by a function."""
    arguments[index] = value(arguments[index]) if callable(value) else value
    return arguments
