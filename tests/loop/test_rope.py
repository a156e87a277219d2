"""Rotations: against the literal loop's, by their differences, and one chunk at a time."""

import pytest
import torch

from pyrf.config import LatentSize, ModelConfig
from pyrf.loop.rope import ChunkRope, chunk_turn, rope_table
from pyrf.ops.norm_rope_append import rotate
from tests.reference import loop as literal

MODEL = ModelConfig(dim=128, num_heads=1)
SIZE = LatentSize(6, 8)


@pytest.mark.parametrize("head_dim", [2, 4, 12, 64, 128])
def test_a_table_turns_as_the_literal_loop_does(head_dim: int) -> None:
    model = ModelConfig(dim=head_dim, num_heads=1)
    frames = [3, 5_000_000]
    x = torch.randn(1, len(frames) * SIZE.tokens, 1, head_dim, dtype=torch.float64)
    expected = literal.rope(x, torch.tensor(frames), SIZE.rows, SIZE.columns, model.rope_theta)
    table = rope_table(model, frames, SIZE, dtype=torch.float64)
    torch.testing.assert_close(rotate(x.transpose(1, 2), table), expected.transpose(1, 2))
    assert sum(model.rope_pairs) == head_dim // 2


def test_a_chunks_turn_leads_from_one_chunk_to_the_next() -> None:
    here, there = (rope_table(MODEL, range(i, i + 3), SIZE, dtype=torch.float64) for i in (6, 9))
    turn = torch.view_as_complex(chunk_turn(MODEL, 3, dtype=torch.float64, device="cpu"))
    pairs = MODEL.rope_pairs[0]
    moved = torch.view_as_complex(here)
    moved = torch.cat((moved[:, :pairs] * turn, moved[:, pairs:]), 1)
    torch.testing.assert_close(moved, torch.view_as_complex(there), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_chunks_table_lies_in_one_tensor(dtype: torch.dtype) -> None:
    rope = ChunkRope(MODEL, SIZE, dtype=dtype, device="cpu")
    first = rope.at(range(3))
    for start in (3, 6, 6, 0):
        positions = range(start, start + 3)
        assert rope.at(positions).data_ptr() == first.data_ptr()
        assert torch.equal(first, rope_table(MODEL, positions, SIZE))
