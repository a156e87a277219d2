"""The streaming loop against recordings of the official one: latents, every call, cache, bfloat16."""

from dataclasses import replace

import pytest
import torch

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize
from pyrf.loop.sampler import ChunkLoop
from pyrf.ops.e4m3 import E4M3
from pyrf.ops.ema_sink_update import join_bits
from tests.reference.loop import ReferenceLoop, rope
from tests.support.golden import TOLERANCE, configs, model, tensors

CHUNKS, FRAMES, HEIGHT, WIDTH, TOKENS = 8, 3, 8, 12, 72


class Recording(TorchRollout):
    """A rollout that keeps what goes in and comes out of each call, and the cache after each chunk."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.inputs, self.timesteps, self.flows, self.caches = [], [], [], []

    def denoise(self, latents, timestep):
        flow = super().denoise(latents, timestep)
        self.inputs.append(latents[0])
        self.timesteps.append(timestep)
        self.flows.append(flow[0].float())
        return flow

    def clean(self, latents):
        super().clean(latents)
        layers = (0, 2)
        self.caches.append({i: (self.cache.keys[i].clone(), self.cache.values[i].clone()) for i in layers})


def roll_out(alpha=0.999, dtype=torch.float32, cache_dtype=None):
    """All chunks of the golden stream; returns latents [8, 3, 16, H, W] and the recording rollout."""
    data = tensors("rollout_fp32")
    stream = replace(configs()[1], sink_alpha=alpha)
    rollout = Recording(
        model(dtype), stream, 1, LatentSize(HEIGHT, WIDTH), data["prompt_embeds"], cache_dtype
    )
    draws = []
    for chunk in range(CHUNKS):
        draws += [data["noise"][:, chunk * FRAMES : (chunk + 1) * FRAMES]]
        draws += [x[None] for x in data["renoise"][chunk]]
    iterator = iter(draws)
    loop = ChunkLoop(rollout, stream, lambda: next(iterator))
    latents = [loop.next_chunk()[0] for _ in range(CHUNKS)]
    return torch.stack(latents), rollout


@pytest.fixture(scope="module")
def rollout():
    return roll_out()


def test_latents(rollout):
    torch.testing.assert_close(rollout[0], tensors("rollout_fp32")["latents"], atol=TOLERANCE, rtol=0)


def test_every_call(rollout):
    data, backend = tensors("rollout_fp32"), rollout[1]
    inputs = torch.stack(backend.inputs).unflatten(0, (CHUNKS, 4))
    flows = torch.stack(backend.flows).unflatten(0, (CHUNKS, 4))
    torch.testing.assert_close(inputs, data["model_input"][:, :4], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(flows, data["flow_pred"][:, :4], atol=TOLERANCE, rtol=0)
    timesteps = torch.tensor(backend.timesteps).unflatten(0, (CHUNKS, 4))
    torch.testing.assert_close(timesteps, data["call_timestep"][:, :4, 0])


def rotated(keys: torch.Tensor, first_frame: int) -> torch.Tensor:
    """Recorded keys [tokens, heads, d] of one chunk as ours: [heads, tokens, d] at absolute positions."""
    positions = torch.arange(first_frame, first_frame + FRAMES)
    return rope(keys[None], positions, HEIGHT // 2, WIDTH // 2, 10000.0)[0].transpose(0, 1)


def sink_start(chunk: int) -> int:
    """Where the sink stands while a chunk is made: one window before its end."""
    return max(0, chunk - 2) * FRAMES


@pytest.mark.parametrize("layer", [0, 2])
def test_cache(rollout, layer):
    data, caches = tensors("cache_fp32"), rollout[1].caches
    for chunk in range(CHUNKS):
        keys, values = caches[chunk][layer]
        held = [(0, 0, sink_start(chunk))]
        for past in range(max(1, chunk - 1), chunk + 1):
            behind = min(chunk, 2) - (chunk - past)
            held.append((1 + (past - 1) % 2, behind, past * FRAMES))
        for ours, theirs, position in held:
            mine = slice(ours * TOKENS, (ours + 1) * TOKENS)
            recorded = slice(theirs * TOKENS, (theirs + 1) * TOKENS)
            expected = rotated(data[f"layer{layer}.k"][chunk, recorded], position)
            torch.testing.assert_close(keys[0, :, mine], expected, atol=TOLERANCE, rtol=0)
            expected = data[f"layer{layer}.v"][chunk, recorded].transpose(0, 1)
            torch.testing.assert_close(values[0, :, mine], expected, atol=TOLERANCE, rtol=0)


def test_alpha_0p9():
    data = tensors("rollout_alpha0p9_fp32")
    latents, backend = roll_out(alpha=0.9)
    torch.testing.assert_close(latents, data["latents"], atol=TOLERANCE, rtol=0)
    for chunk in range(CHUNKS):
        for layer in (0, 2):
            keys, values = backend.caches[chunk][layer]
            expected = rotated(data[f"layer{layer}.k"][chunk], sink_start(chunk))
            torch.testing.assert_close(keys[0, :, :TOKENS], expected, atol=TOLERANCE, rtol=0)
            expected = data[f"layer{layer}.v"][chunk].transpose(0, 1)
            torch.testing.assert_close(values[0, :, :TOKENS], expected, atol=TOLERANCE, rtol=0)


def rms_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference, relative to what is expected."""
    return ((got - expected).square().mean() / expected.square().mean()).sqrt().item()


@pytest.fixture(scope="module")
def bfloat16_rollout():
    return roll_out(dtype=torch.bfloat16)


def test_bfloat16(bfloat16_rollout):
    data = tensors("rollout_bf16")
    latents, backend = bfloat16_rollout
    assert rms_error(latents, data["latents"]) < 0.02
    assert rms_error(latents, tensors("rollout_fp32")["latents"]) < 0.02
    flows = torch.stack(backend.flows[:8]).unflatten(0, (2, 4))
    assert rms_error(flows, data["flow_pred"][:, :4]) < 0.02


def test_attention_in_e4m3():
    """Near float32's stream to the end: what is rounded does not add up."""
    expected = tensors("rollout_fp32")["latents"]
    latents, backend = roll_out(cache_dtype=E4M3)
    errors = [rms_error(ours, theirs) for ours, theirs in zip(latents, expected)]
    print("e4m3, by chunk:", " ".join(f"{error:.4f}" for error in errors))
    assert 1e-4 < max(errors) < 0.02
    assert backend.cache.keys[0].dtype == E4M3


def test_bfloat16_sink_moves_where_the_recorded_one_stalls(bfloat16_rollout):
    """How far the sink's values went in seven chunks, against the float32 recording."""
    exact, recorded, backend = tensors("cache_fp32"), tensors("rollout_bf16"), bfloat16_rollout[1]
    name = "layer2.v"
    moved = exact[name][7, :TOKENS] - exact[name][0, :TOKENS]
    first = backend.caches[0][2][1][0, :, :TOKENS].float()
    sink = backend.cache.values[2][:, :, :TOKENS]
    ours = (join_bits(sink, backend.cache.value_masters[2])[0] - first).transpose(0, 1)
    theirs = recorded[name][7] - recorded[name][0]
    assert rms_error(ours, moved) < 0.05
    assert rms_error(theirs, moved) > 0.3


def test_literal_reference():
    """The reference that property tests use is itself the official loop."""
    data = tensors("rollout_fp32")
    config, stream = configs()
    loop = ReferenceLoop(tensors("weights"), config, stream, data["prompt_embeds"], HEIGHT, WIDTH)
    for chunk in range(CHUNKS):
        noise = data["noise"][:, chunk * FRAMES : (chunk + 1) * FRAMES]
        latents = loop.next_chunk(noise, [x[None] for x in data["renoise"][chunk]])
        torch.testing.assert_close(latents[0], data["latents"][chunk], atol=TOLERANCE, rtol=0)
