"""The cache: any legal stream equals the literal loop; slots, snapshots and refusals."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.sampler import ChunkLoop, SeededNoise
from pyrf.ops.e4m3 import E4M3, to_e4m3
from tests.reference.loop import ReferenceLoop
from tests.support.tiny import CONFIG, HEIGHT, SIZE, WIDTH, network, prompts


@st.composite
def streams(draw):
    chunk = draw(st.integers(1, 4))
    sink = draw(st.sampled_from((0, chunk)))
    slots = draw(st.integers(2 if sink else 1, 5))
    return StreamConfig(
        chunk_frames=chunk,
        window_frames=slots * chunk,
        sink_frames=sink,
        sink_alpha=draw(st.sampled_from((0.0, 0.5, 0.9, 0.999, 1.0))),
        denoising_steps=draw(st.sampled_from(((1000,), (1000, 500), (1000, 750, 500, 250)))),
        shift=draw(st.sampled_from((1.0, 5.0))),
    )


@settings(max_examples=15, derandomize=True)
@given(
    stream=streams(),
    batch=st.integers(1, 3),
    chunks=st.integers(1, 60),
    layers=st.integers(1, 2),
    heads=st.sampled_from((1, 2, 3)),
    seed=st.integers(0, 99),
)
def test_any_legal_stream_equals_the_literal_loop(stream, batch, chunks, layers, heads, seed):
    check_against_reference(stream, batch, chunks, layers, heads, seed)


def test_sixty_chunks_equal_the_literal_loop():
    check_against_reference(StreamConfig(sink_alpha=0.9), 1, 60, 1, 2, 0)


def check_against_reference(stream, batch, chunks, layers, heads, seed):
    config = replace(CONFIG, num_layers=layers, num_heads=heads)
    model, weights = network(config, seed)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)

    prompt = draw(config.text_len, config.text_dim)
    rollout = TorchRollout(model, stream, batch, SIZE, prompt)
    literal = ReferenceLoop(weights, config, stream, prompt, HEIGHT, WIDTH)
    for _ in range(chunks):
        draws = [draw(stream.chunk_frames, 4, HEIGHT, WIDTH) for _ in stream.denoising_steps]
        loop = ChunkLoop(rollout, stream, iter(draws).__next__)
        expected = literal.next_chunk(draws[0], draws[1:])
        torch.testing.assert_close(loop.next_chunk(), expected, atol=1e-10, rtol=0)


def make_cache(stream=None, dtype=torch.float32, batch=1):
    return SinkRingCache(
        CONFIG, stream or StreamConfig(), batch=batch, size=LatentSize(2, 4), dtype=dtype, device="cpu"
    )


def test_slots():
    cache = make_cache(StreamConfig(window_frames=12))
    assert [cache.slot_of(c) for c in range(9)] == [0, 1, 2, 3, 1, 2, 3, 1, 2]
    cache = make_cache(StreamConfig(sink_frames=0))
    assert [cache.slot_of(c) for c in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_the_valid_part_is_a_growing_prefix():
    cache = make_cache()
    lengths = []
    for _ in range(5):
        cache.begin_chunk()
        lengths.append(cache.length // cache.tokens)
        cache.commit()
    assert lengths == [1, 2, 3, 3, 3]
    assert list(cache.frame_positions) == [15, 16, 17]


def test_memory_is_allocated_once():
    cache = make_cache(dtype=torch.bfloat16)
    kept = [x.data_ptr() for x in (*cache.keys, *cache.values, *cache.key_masters, cache.slot)]
    for _ in range(8):
        cache.begin_chunk()
        cache.commit()
    cache.reset()
    assert [x.data_ptr() for x in (*cache.keys, *cache.values, *cache.key_masters, cache.slot)] == kept
    assert cache.chunk == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, E4M3])
def test_a_cache_that_was_used_before_is_as_a_new_one(dtype):
    """Also in the bits that are kept beside the sink."""

    def stream(cache):
        generator = torch.Generator().manual_seed(0)
        for _ in range(6):
            cache.begin_chunk()
            for x in (*cache.keys, *cache.values):
                own = x.narrow(2, int(cache.slot) * cache.tokens, cache.tokens)
                own.copy_(torch.randn(own.shape, generator=generator))
            cache.commit()
        return [x.float() for x in (*cache.keys, *cache.values, *cache._masters())]

    cache = make_cache(StreamConfig(sink_alpha=0.9), dtype)
    first = stream(cache)
    cache.reset()
    assert all(map(torch.equal, stream(cache), first))


def test_a_ring_of_e4m3_takes_half_of_bfloat16_s_bytes():
    narrow, wide = make_cache(dtype=E4M3), make_cache(dtype=torch.bfloat16)
    for name in ("keys", "values"):
        held = [sum(x.nbytes for x in getattr(cache, name)) for cache in (narrow, wide)]
        assert 2 * held[0] == held[1]


def test_a_sink_of_e4m3_starts_from_what_the_first_chunk_left():
    """Its master is seeded with the first sink's numbers, and averages on in float32."""
    cache = make_cache(StreamConfig(sink_alpha=0.9), E4M3)
    for chunk in range(4):
        cache.begin_chunk()
        for values in cache.values:
            values.narrow(2, int(cache.slot) * cache.tokens, cache.tokens).fill_(1.0 + chunk)
        cache.commit()
    expected = 0.9 * 1.0 + 0.1 * 2.0  # chunk 1 is folded into chunk 0
    for values, master in zip(cache.values, cache.value_masters):
        torch.testing.assert_close(master, torch.full_like(master, expected))
        assert torch.equal(values[:, :, : cache.tokens].float(), to_e4m3(master).float())


def test_refuses_verbs_out_of_order():
    cache = make_cache()
    with pytest.raises(RuntimeError, match="begin_chunk"):
        cache.commit()
    with pytest.raises(RuntimeError, match="begin_chunk"):
        cache.snapshot()
    cache.begin_chunk()
    with pytest.raises(RuntimeError, match="under way"):
        cache.begin_chunk()
    with pytest.raises(RuntimeError, match="under way"), cache.rewrite(0):
        pass
    cache.commit()
    with pytest.raises(ValueError, match="ring"), cache.rewrite(0):
        pass


def test_refuses_an_empty_batch():
    with pytest.raises(ValueError, match="at least 1"):
        make_cache(batch=0)


def fill(cache: SinkRingCache) -> None:
    """Write the chunk's index into all of its slot."""
    span = slice(int(cache.slot) * cache.tokens, (int(cache.slot) + 1) * cache.tokens)
    for buffer in (*cache.keys, *cache.values):
        buffer[:, :, span] = float(cache.chunk + 1)


def test_snapshot_leaves_out_the_current_chunk_and_never_changes():
    cache = make_cache(StreamConfig(window_frames=12))
    for _ in range(6):
        cache.begin_chunk()
        fill(cache)
        cache.commit()
    cache.begin_chunk()
    values = cache.snapshot()[0][1]
    assert values.shape[2] == 3 * cache.tokens
    sink, first, second = values[0, 0, :: cache.tokens, 0].tolist()
    assert 1.0 < sink < 1.1
    assert {first, second} == {5.0, 6.0}
    before = values.clone()
    fill(cache)
    cache.commit()
    cache.begin_chunk()
    assert torch.equal(values, before)


def test_rewriting_a_chunk_changes_nothing_but_what_it_saw():
    """Clean latents written again under the same prompt give the same keys where the context is the same."""
    model, _ = network()
    stream = StreamConfig(window_frames=12, sink_alpha=0.9)
    prompt = prompts()
    rollout = TorchRollout(model, stream, 1, SIZE, prompt)
    cache = rollout.cache
    noise = SeededNoise([0], rollout.shape)
    loop = ChunkLoop(rollout, stream, lambda: noise().double())
    for _ in range(4):
        loop.next_chunk()
    before = [x.clone() for x in (*cache.keys, *cache.values)]
    rollout.set_prompt(prompt, recache=True)
    after = (*cache.keys, *cache.values)
    # Nothing was evicted yet, so every chunk sees what it saw when it was made.
    torch.testing.assert_close(list(after), before, atol=1e-12, rtol=0)
    rollout.set_prompt(-prompt, recache=True)
    assert not torch.allclose(after[1], before[1], atol=1e-3)
    sink = slice(0, cache.tokens)
    assert torch.equal(after[1][:, :, sink], before[1][:, :, sink])
    loop.next_chunk()
