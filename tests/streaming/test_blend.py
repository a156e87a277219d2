"""Blended rows: directions, norms, padding, and the steps of a transition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyrf.streaming.blend import PromptRows, blend, mean, slerp
from pyrf.streaming.prompts import PromptChange

SEEDS = st.integers(0, 2**31)
SHARES = st.floats(0, 1)


def rows(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


@given(SEEDS, SHARES, st.floats(0.1, 10))
def test_slerp_turns_evenly_and_mixes_norms_linearly(seed: int, share: float, longer: float) -> None:
    a, b = rows(seed, 5, 16), longer * rows(seed + 1, 5, 16)
    between = slerp(a, b, share).double()
    a, b = a.double(), b.double()
    norms = (1 - share) * a.norm(dim=-1) + share * b.norm(dim=-1)
    torch.testing.assert_close(between.norm(dim=-1), norms, rtol=1e-5, atol=1e-6)

    def angle(x: Tensor, y: Tensor) -> Tensor:
        return torch.acos(torch.nn.functional.cosine_similarity(x, y, dim=-1).clamp(-1, 1))

    torch.testing.assert_close(angle(a, between), share * angle(a, b), rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(between, slerp(b.float(), a.float(), 1 - share).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_both_ends_the_rows_come_back_as_they_are(dtype: torch.dtype) -> None:
    a, b = rows(0, 4, 8).to(dtype), rows(1, 4, 8).to(dtype)
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.equal(slerp(a, b, 1.0), b)
    assert slerp(a, b, 0.3).dtype == dtype
    assert mean(torch.stack([a, b, a]), [0.2, 0.3, 0.5]).dtype == dtype


@given(SEEDS, SHARES)
def test_beside_a_row_of_zeros_the_other_one_is_scaled(seed: int, share: float) -> None:
    a, zeros = rows(seed, 3, 8), torch.zeros(3, 8, dtype=torch.float32, device="cpu")
    torch.testing.assert_close(slerp(a, zeros, share), (1 - share) * a)
    torch.testing.assert_close(slerp(zeros, a, share), share * a)
    assert torch.equal(slerp(zeros, zeros, share), zeros)
    torch.testing.assert_close(
        mean(torch.stack([a, zeros, zeros]), [share, (1 - share) / 2, (1 - share) / 2]), share * a
    )


@given(SHARES)
def test_equal_and_opposite_rows_have_finite_blends(share: float) -> None:
    a = rows(7, 3, 8)
    torch.testing.assert_close(slerp(a, a, share), a)
    torch.testing.assert_close(slerp(a, 3 * a, share), (1 + 2 * share) * a)
    assert slerp(a, -a, share).isfinite().all()
    assert mean(torch.stack([a, -a, a]), [0.25, 0.5, 0.25]).isfinite().all()


@given(SEEDS, st.lists(st.floats(0.01, 1), min_size=3, max_size=8))
def test_a_mean_keeps_the_mean_norm_and_the_direction_of_the_sum(
    seed: int, given_weights: list[float]
) -> None:
    total = math.fsum(given_weights)
    weights = [weight / total for weight in given_weights]
    parts = rows(seed, len(weights), 4, 16)
    mixed = blend(parts, weights).double().numpy()
    x = parts.double().numpy()
    expected = np.tensordot(weights, x, axes=1)
    norms = np.tensordot(weights, np.linalg.norm(x, axis=-1), axes=1)
    expected *= (norms / np.linalg.norm(expected, axis=-1))[..., None]
    np.testing.assert_allclose(mixed, expected, rtol=1e-3, atol=1e-5)


class Encoder:
    """Rows by text, and which texts it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> Tensor:
        self.asked += texts
        return torch.stack([rows(ord(text), 3, 4) for text in texts])


def rows_of(text: str) -> Tensor:
    return rows(ord(text), 3, 4)


def test_a_transition_takes_steps_and_ends_at_the_very_rows() -> None:
    encoder = Encoder()
    state = PromptRows(encoder, PromptChange(("a", "b")))
    assert state.advance(None) is None
    steps = [state.advance(PromptChange(("c", "c"), True, 4))] + [state.advance(None) for _ in range(4)]
    shown = [step for step in steps if step is not None]
    assert steps[4] is None
    assert [step.recache for step in shown] == [False, False, False, True]
    for i, step in enumerate(shown):
        for clip, text in enumerate("ab"):
            assert torch.equal(step.rows[clip], slerp(rows_of(text), rows_of("c"), (i + 1) / 4))
    assert torch.equal(shown[-1].rows[0], rows_of("c"))
    assert state.progress == 1.0
    assert encoder.asked == ["a", "b", "c"]


def test_a_change_on_the_way_begins_where_the_rows_are() -> None:
    state = PromptRows(Encoder(), PromptChange(("a",)))
    state.advance(PromptChange(("b",), False, 4))
    assert state.progress == 0.25
    halfway = slerp(rows_of("a"), rows_of("b"), 0.5)
    step = state.advance(None)
    assert step is not None
    assert torch.equal(step.rows[0], halfway)
    turned = state.advance(PromptChange(("c",), False, 2))
    assert turned is not None
    assert torch.equal(turned.rows[0], slerp(halfway, rows_of("c"), 0.5))
    assert (state.prompts, state.progress) == (("c",), 0.5)
    last = state.advance(None)
    assert last is not None
    assert torch.equal(last.rows[0], rows_of("c"))


def test_texts_that_stay_are_not_encoded_again() -> None:
    encoder = Encoder()
    state = PromptRows(encoder, PromptChange(((("a", 0.5), ("b", 0.5)),)))
    state.advance(PromptChange(((("a", 0.25), ("b", 0.75)),)))
    assert encoder.asked == ["a", "b"]
    assert torch.equal(state.rows[0], slerp(rows_of("a"), rows_of("b"), 0.75))
    state.advance(PromptChange(("c",)))
    state.advance(PromptChange(("a",)))
    assert encoder.asked == ["a", "b", "c", "a"]  # what was left is forgotten
