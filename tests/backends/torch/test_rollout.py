"""The torch backend: prompt changes, order of verbs, memory."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.loop.sampler import ChunkLoop
from pyrf.models.dit.model import WanModel
from tests.support.tiny import CONFIG, HEIGHT, SIZE, WIDTH, network, prompts

STREAM = StreamConfig()
SHAPE = (STREAM.chunk_frames, CONFIG.in_channels, HEIGHT, WIDTH)


def opened(batch=1, dtype=torch.float32):
    return TorchRollout(network(dtype=dtype)[0], STREAM, batch, SIZE, prompts(dtype=torch.float32))


def loop(chunks=0):
    """A loop over a new rollout, some chunks in."""
    rollout = opened()
    made = rollout.loop([0])
    for _ in range(chunks):
        made.next_chunk()
    return rollout, made


def test_a_prompt_change_takes_effect_at_the_next_chunk():
    other = prompts(seed=1, dtype=torch.float32)
    kept, changed, recached = (loop(4) for _ in range(3))
    changed[0].set_prompt(other)
    recached[0].set_prompt(other, recache=True)
    chunks = [made.next_chunk() for _, made in (kept, changed, recached)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(chunks[i], chunks[j], atol=1e-3)


def test_recache_under_the_same_prompt_keeps_what_only_saw_the_window():
    rollout, _ = loop(3)
    before = [x.clone() for x in rollout.cache.keys]
    rollout.set_prompt(prompts(dtype=torch.float32), recache=True)
    torch.testing.assert_close(list(rollout.cache.keys), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window_frames", [9, 15])
def test_recache_writes_what_the_new_prompt_would_have_written(window_frames):
    """The clean calls of the same latents, in their order, with the prompt changed behind the sink.

    The keys of the third layer are the first that see what the prompt made of an older chunk.
    """
    model = network(replace(CONFIG, num_layers=3), dtype=torch.float32)[0]
    stream, other = StreamConfig(window_frames=window_frames), prompts(seed=1, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    latents = [torch.randn(1, *SHAPE, generator=generator) for _ in range(stream.slots)]
    recached, expected = (
        TorchRollout(model, stream, 1, SIZE, prompts(dtype=torch.float32)) for _ in range(2)
    )
    for i, clean in enumerate(latents):
        if i == 1:
            expected.set_prompt(other)
        for rollout in (recached, expected):
            rollout.begin_chunk()
            rollout.clean(clean)
    recached.set_prompt(other, recache=True)
    for name in ("keys", "values"):
        found, wanted = (list(getattr(rollout.cache, name)) for rollout in (recached, expected))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_recache_uses_the_latents_of_a_chunk_that_was_made_again():
    """Once, and not those of the chunk that it replaces."""
    rollout, made = loop(3)
    made.redo_chunk()
    before = [x.clone() for x in rollout.cache.keys]
    rollout.set_prompt(prompts(dtype=torch.float32), recache=True)
    torch.testing.assert_close(list(rollout.cache.keys), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunks", [0, 1])
def test_recache_with_an_empty_ring_is_a_prompt_change(chunks):
    rollout, made = loop(chunks)
    rollout.set_prompt(prompts(seed=1, dtype=torch.float32), recache=True)
    made.next_chunk()


def test_refuses_verbs_out_of_order():
    rollout = opened()
    with pytest.raises(RuntimeError, match=r"begin_chunk\(\)"):
        rollout.denoise(torch.zeros(1, *SHAPE), 1000.0)
    rollout.begin_chunk()
    with pytest.raises(RuntimeError, match="between chunks"):
        rollout.set_prompt(prompts(dtype=torch.float32))


def test_refuses_shapes_that_do_not_fit_the_stream():
    rollout = opened()
    with pytest.raises(ValueError, match="1 or 1 prompts, got 2"):
        rollout.set_prompt(prompts(2, dtype=torch.float32))
    with pytest.raises(ValueError, match="prompt_embeds must be"):
        rollout.set_prompt(torch.zeros(1, 4, 8))
    rollout.begin_chunk()
    for shape in ((1, 3, 5, HEIGHT, WIDTH), (1, 2, 4, HEIGHT, WIDTH), (1, 3, 4, HEIGHT, WIDTH + 2)):
        for call in (lambda x: rollout.denoise(x, 1000.0), rollout.clean):
            with pytest.raises(ValueError, match=r"latents must be \[1, 3, 4, 4, 6\]"):
                call(torch.zeros(shape))


def test_a_rollouts_memory_goes_with_it():
    rollout, made = loop(2)
    buffer = weakref.ref(rollout.cache)
    del rollout, made
    assert buffer() is None


def test_clean_calls_skip_the_head_and_all_behind_the_last_keys():
    rollout = opened()
    last = rollout.model.blocks[-1]
    for module in (rollout.model.head, last.cross_attn, last.ffn, last.self_attn.q, last.self_attn.o):
        module.register_forward_hook(lambda *_: pytest.fail("needless work"))
    rollout.begin_chunk()
    rollout.clean(torch.zeros(1, *SHAPE))
    assert rollout.cache.chunk == 1


@pytest.mark.parametrize("head_dim", [12, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stream_on_a_gpu_never_waits_for_the_device(dtype, head_dim):
    """Traced with fake CUDA tensors: a host that reads a device value, or mixes devices, would raise."""
    config = replace(CONFIG, dim=CONFIG.num_heads * head_dim)
    with torch.device("meta"):
        model = WanModel(config).to(dtype)
    # Made out here, as its noise levels are read on the host.
    stream = ChunkLoop(opened(), STREAM, lambda: torch.zeros(1, *SHAPE, device="cuda"))
    embeds = (1, CONFIG.text_len, CONFIG.text_dim)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                fake = torch.empty(p.shape, dtype=dtype, device="cuda")
                setattr(module, name, torch.nn.Parameter(fake, requires_grad=False))
        rollout = TorchRollout(model, STREAM, 1, SIZE, torch.zeros(embeds, device="cuda"))
        stream.calls = rollout
        for _ in range(5):
            latents = stream.next_chunk()
        rollout.set_prompt(torch.zeros(embeds, device="cuda"), recache=True)
    assert latents.device.type == "cuda"
    assert latents.shape == (1, *SHAPE)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_half_precision_streams_stay_near_float32(dtype, tolerance):
    def stream(dtype):
        made = opened(dtype=dtype).loop([0])
        return torch.cat([made.next_chunk() for _ in range(6)], 1)

    exact = stream(torch.float32)
    error = (stream(dtype) - exact).norm() / exact.norm()
    assert 0 < error < tolerance
