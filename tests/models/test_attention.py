"""Attention with a gradient gives what torch gives in float64, in whichever form it runs."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.models.attention import FEW_KEYS, softmax_attention


def attended(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, dtype: torch.dtype
) -> list[Tensor]:
    """The result and the gradients of q, k and v of its weighted sum."""
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in (q, k, v)]
    mixed = softmax_attention(*leaves, mask=mask, scale=scale)
    (mixed.double() * torch.linspace(-1, 1, mixed.shape[-1], dtype=torch.float64)).sum().backward()
    return [mixed.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("masked", ["no", "bool", "numbers"])
@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("keys", [24, FEW_KEYS + 1])
def test_all_forms_agree_with_float64(masked: str, scale: float | None, keys: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (0.5 * torch.randn(2, 3, n, 16, generator=generator) for n in (20, keys, keys))
    mask = None
    if masked == "bool":
        mask = torch.rand(20, keys, generator=generator) < 0.7
    elif masked == "numbers":
        mask = torch.randn(1, 3, 20, keys, generator=generator)
    wide = mask.double() if masked == "numbers" and mask is not None else mask
    exact = attended(q, k, v, wide, scale, torch.float64)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
        narrow = mask.to(dtype) if masked == "numbers" and mask is not None else mask
        for result, wanted in zip(attended(q, k, v, narrow, scale, dtype), exact, strict=True):
            assert result.dtype == dtype
            assert float((result - wanted).abs().max()) < tolerance * float(wanted.abs().max())


def test_autocast_takes_operands_of_two_dtypes() -> None:
    """Norms give float32 queries and keys beside bfloat16 values."""
    q, k, v = (torch.randn(1, 2, 8, 16, generator=torch.Generator().manual_seed(n)) for n in range(3))
    expected = F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = softmax_attention(q.requires_grad_(), k, v.bfloat16())
    torch.testing.assert_close(mixed.float(), expected, atol=0.03, rtol=0)
