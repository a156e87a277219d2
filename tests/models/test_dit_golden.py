"""The network against the official one: bidirectional teacher and masked training forwards."""

import pytest
import torch
from golden import TOLERANCE, model, tensors

from pyrf.models.attention import MaskedAttention
from pyrf.models.masks import block_causal_mask, teacher_forcing_mask

TOKENS = 24


@pytest.fixture(scope="module")
def network():
    return model()


def frames_first(x: torch.Tensor) -> torch.Tensor:
    """Recorded [B, C, F, H, W] to our [B, F, C, H, W]."""
    return x.transpose(1, 2).contiguous()


def test_teacher(network):
    data = tensors("teacher_bidirectional")
    prompt = network.encode_prompt(data["prompt_embeds"])
    latents = frames_first(data["latent"])
    for timestep, expected in zip(data["timesteps"], data["flow_pred"]):
        flow = network(latents, timestep[None], prompt)[0].transpose(0, 1)
        torch.testing.assert_close(flow, expected, atol=TOLERANCE, rtol=0)


CAUSAL = [
    ("causal12.block3.localnone", {"block_frames": 3}),
    ("causal12.block3.local9", {"block_frames": 3, "window_frames": 9}),
    ("causal12.block3.local6", {"block_frames": 3, "window_frames": 6}),
    ("causal12.block3.local3", {"block_frames": 3, "window_frames": 3}),
    ("causal12.block1.local4", {"block_frames": 1, "window_frames": 4}),
    ("causal7.firstframe.block3.localnone", {"block_frames": 3, "first_frame": True}),
]


@pytest.mark.parametrize(("name", "settings"), CAUSAL)
def test_causal_forward(network, name, settings):
    data = tensors("train_forward")
    frames = 7 if name.startswith("causal7") else 12
    mask = block_causal_mask(frames, TOKENS, **settings)
    prompt = network.encode_prompt(data["prompt_embeds"])
    flow = network(
        frames_first(data[f"x{frames}"]), data[f"t{frames}"], prompt, attention=MaskedAttention(mask)
    )
    torch.testing.assert_close(flow[0].transpose(0, 1), data[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("augmented", [False, True])
def test_teacher_forcing(network, augmented):
    data = tensors("train_forward")
    both = torch.cat((frames_first(data["clean6"]), frames_first(data["x6"])), 1)
    clean_t = data["aug_t6"] if augmented else torch.zeros_like(data["t6"])
    flow = network(
        both,
        torch.cat((clean_t, data["t6"]), 1),
        network.encode_prompt(data["prompt_embeds"]),
        attention=MaskedAttention(teacher_forcing_mask(6, TOKENS, 3)),
        frame_positions=torch.arange(6).repeat(2),
    )[0, 6:]
    expected = data["tf6.block3.aug40" if augmented else "tf6.block3.aug_none"]
    torch.testing.assert_close(flow.transpose(0, 1), expected, atol=TOLERANCE, rtol=0)
