"""The chunk loop: seeds, given beginnings, and rollouts with a gradient."""

import pytest
import torch

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.sampler import ChunkLoop, SeededNoise, TrainingRollout
from tests.support.tiny import CONFIG, HEIGHT, WIDTH, network, prompts

STREAM = StreamConfig(sink_alpha=0.9)
SIZE = LatentSize(HEIGHT, WIDTH)
SHAPE = (STREAM.chunk_frames, CONFIG.in_channels, HEIGHT, WIDTH)


class DoubleNoise(SeededNoise):
    """Float64 draws, for exact comparisons."""

    def __call__(self) -> torch.Tensor:
        return super().__call__().double()


def stream(seeds, prompt_embeds, chunks=5, dtype=torch.float32):
    """Latents of a stream, [B, chunks * F, C, H, W]."""
    backend = TorchRollout(network(dtype=dtype)[0], STREAM)
    backend.start(len(seeds), HEIGHT, WIDTH)
    backend.set_prompt(prompt_embeds.to(dtype))
    noise = SeededNoise(seeds, SHAPE)
    loop = ChunkLoop(backend, STREAM, lambda: noise().to(dtype))
    return torch.cat([loop.next_chunk() for _ in range(chunks)], 1)


def test_each_video_of_a_batch_depends_on_its_own_seed_and_prompt_only():
    both = prompts(2)
    together = stream([3, 4], both)
    for i, seed in enumerate((3, 4)):
        alone = stream([seed], both[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_one_prompt_serves_all_videos():
    one = prompts(1)
    each = one.expand(2, -1, -1)
    torch.testing.assert_close(stream([3, 4], one), stream([3, 4], each), atol=1e-5, rtol=0)


def test_same_seed_same_bytes():
    assert torch.equal(stream([7], prompts()), stream([7], prompts()))


def test_a_given_beginning_goes_on_as_the_stream_it_came_from():
    """Cached keys depend on clean latents only, so a stream resumes from its own latents."""
    model = network()[0]

    def start():
        backend = TorchRollout(model, STREAM)
        backend.start(1, HEIGHT, WIDTH)
        backend.set_prompt(prompts())
        noise = DoubleNoise([1], SHAPE)
        return ChunkLoop(backend, STREAM, noise)

    whole = start()
    latents = [whole.next_chunk() for _ in range(6)]
    resumed = start()
    resumed.prefill(torch.cat(latents[:5], 1))
    for _ in range(5 * len(STREAM.denoising_steps)):
        resumed.draw()
    torch.testing.assert_close(resumed.next_chunk(), latents[5], atol=1e-12, rtol=0)


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_refuses_a_beginning_that_does_not_fill_chunks(frames):
    loop = ChunkLoop(TorchRollout(network()[0], STREAM), STREAM, SeededNoise([0], SHAPE))
    with pytest.raises(ValueError, match="multiple of 3"):
        loop.prefill(torch.zeros(1, frames, *SHAPE[1:]))


def rollout(exit_step, chunks=6, checkpointing=False, leaf=False):
    """A trainable model, its prompt's embedding, and the latents of a rollout that exits at a step."""
    model = network()[0].requires_grad_(True)
    embeds = prompts().requires_grad_(leaf)
    trainer = TrainingRollout(
        model,
        STREAM,
        model.encode_prompt(embeds),
        size=SIZE,
        checkpointing=checkpointing,
    )
    noise = DoubleNoise([1], SHAPE)
    return model, embeds, [trainer.next_chunk(noise, exit_step) for _ in range(chunks)]


def test_a_rollout_to_the_last_step_is_inference():
    """Evictions and the sink included: the sixth chunk follows three of them."""
    expected = stream([1], prompts(), 6, torch.float64)
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
        trainer = TrainingRollout(model, STREAM, model.encode_prompt(prompts()), size=SIZE)
        sampler, plain = trainer.sampler, trainer.sampler.x0

        def x0(predict, x, index):
            if index != 1:
                return plain(predict, x, index)
            with torch.no_grad():
                weight.add_(sign * step * gradient)
                out = plain(predict, x, index)
                weight.sub_(sign * step * gradient)
            return out

        sampler.x0 = x0
        with torch.no_grad():
            return trainer.next_chunk(DoubleNoise([1], SHAPE), 1).square().sum()

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
