"""Rollouts of a network with a gradient: inference's chunks, and a gradient that stays in its chunk."""

from dataclasses import replace
from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.loop.sampler import ChunkLoop
from pyrf.models.dit.rollout import ModelRollout
from tests.support.tiny import CONFIG, SIZE, DoubleNoise, network, prompts

STREAM = StreamConfig(sink_alpha=0.9)
SHAPE = (STREAM.chunk_frames, CONFIG.in_channels, *SIZE)


def rollout(exit_step, chunks=6, checkpointing=False, leaf=False):
    """A trainable model, its prompt's embedding, and the latents of a rollout that exits at a step."""
    model = network()[0].requires_grad_(True)
    if checkpointing:
        for block in model.blocks:
            recomputed = partial(checkpoint, block.forward, use_reentrant=False)
            block.forward = recomputed  # type: ignore[method-assign]  # so that state keeps its names
    embeds = prompts().requires_grad_(leaf)
    made = ModelRollout(model, STREAM, model.encode_prompt(embeds), SIZE)
    noise = DoubleNoise([1], SHAPE)
    return model, embeds, [made.next_chunk(noise, exit_step) for _ in range(chunks)]


def test_a_rollout_to_the_last_step_is_inference():
    """Evictions and the sink included: the sixth chunk follows three of them."""
    loop = ChunkLoop(TorchRollout(network()[0], STREAM, 1, SIZE, prompts()), STREAM, DoubleNoise([1], SHAPE))
    expected = torch.cat([loop.next_chunk() for _ in range(6)], 1)
    torch.testing.assert_close(torch.cat(rollout(3)[2], 1).detach(), expected, atol=1e-12, rtol=0)


def test_a_rollout_without_gradients_gives_the_same():
    with torch.no_grad():
        plain = torch.cat(rollout(1)[2], 1)
    torch.testing.assert_close(plain, torch.cat(rollout(1)[2], 1).detach(), atol=1e-12, rtol=0)


def test_the_gradient_stays_in_its_chunk():
    """The same chunk, rolled out behind detached ones, has the same gradient."""
    model, _, latents = rollout(1)
    weight = model.blocks[0].self_attn.k.weight
    through = torch.autograd.grad(latents[4].square().sum(), weight, retain_graph=True)[0]
    again = rollout(1)
    for earlier in again[2][:4]:
        earlier.detach_()
    alone = torch.autograd.grad(again[2][4].square().sum(), again[0].blocks[0].self_attn.k.weight)[0]
    assert through.abs().max() > 1e-6
    torch.testing.assert_close(through, alone, atol=0, rtol=0)


def test_the_gradient_is_that_of_the_exit_call_alone():
    """A finite difference of the exit call on its constant context, in the direction of the gradient."""
    model, _, latents = rollout(1, chunks=1)
    loss = latents[0].square().sum()
    weight = model.blocks[1].ffn[0].weight
    gradient = torch.autograd.grad(loss, weight)[0]
    step = 1e-6 / gradient.norm()

    def moved(sign):
        """The loss where only the exit call sees the moved weight."""
        made = ModelRollout(model, STREAM, model.encode_prompt(prompts()), SIZE)
        sampler, plain = made._first, made._first.x0

        def x0(predict, x, index):
            if index != 1:
                return plain(predict, x, index)
            with torch.no_grad():
                weight.add_(sign * step * gradient)
                out = plain(predict, x, index)
                weight.sub_(sign * step * gradient)
            return out

        with torch.no_grad(), patch.object(sampler, "x0", x0):
            return made.next_chunk(DoubleNoise([1], SHAPE), 1).square().sum()

    slope = (moved(1) - moved(-1)) / (2 * step)
    torch.testing.assert_close(slope, gradient.square().sum(), rtol=1e-4, atol=0)


def test_checkpointing_sees_the_same_context_in_the_backward():
    """Backward runs after the ring was overwritten; the recomputed call must not notice."""
    gradients = []
    for checkpointing in (False, True):
        model, embeds, latents = rollout(2, checkpointing=checkpointing, leaf=True)
        sum(x.square().sum() for x in latents).backward()
        gradients.append([p.grad for p in model.parameters()] + [embeds.grad])
    assert gradients[0][-1].abs().max() > 1e-6
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-12, rtol=1e-9)


def test_refuses_an_exit_step_that_is_not_one():
    with pytest.raises(ValueError, match=r"0\.\.3"):
        rollout(4)


def test_a_first_chunk_with_steps_of_its_own_runs_them_all():
    stream = replace(STREAM, denoising_steps=(1000, 500), first_chunk_steps=(1000, 750, 500, 250))
    model = network()[0]
    made = ModelRollout(model, stream, model.encode_prompt(prompts()), SIZE)
    loop = ChunkLoop(TorchRollout(model, stream, 1, SIZE, prompts()), stream, DoubleNoise([1], SHAPE))
    noise = DoubleNoise([1], SHAPE)
    for exit_step in (0, 1):  # the first is the exit of later chunks alone
        chunk = made.next_chunk(noise, exit_step).detach()
        torch.testing.assert_close(chunk, loop.next_chunk(), atol=1e-9, rtol=0)
