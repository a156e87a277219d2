"""The codec's start: a linear codec, and a network that does the same; and a step from there."""

import random
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pyrf.models.codecs.taehv import TAEHV, MemoryBlock, TAEHVConfig
from pyrf.training.runner.stage import Draw
from pyrf.training.scratch.block_codec import LINEAR, BlockCodecSettings, BlockCodecStage
from pyrf.training.scratch.clips import FIRST_SEED, HELD_OUT_SEED, random_clip, subject_mask
from pyrf.training.scratch.linear_codec import LinearCodec, encoder_of, fit, write
from pyrf.training.scratch.windows import CROP, FRAMES
from pyrf.worlds.valley.world import Valley

WORLD = Valley()
SETTINGS = BlockCodecSettings(
    latent_channels=24, encoder_width=128, decoder_widths=(128, 128, 128, 144), blocks=2, linear_clips=8
)
CONFIG = SETTINGS.config


@pytest.fixture(scope="module")
def linear() -> LinearCodec:
    return fit(WORLD, 8, FIRST_SEED, CONFIG.latent_channels)


@pytest.fixture(scope="module")
def network(linear: LinearCodec) -> TAEHV:
    network = TAEHV(CONFIG)
    write(linear, network)
    return network.eval()


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return random_clip(WORLD, HELD_OUT_SEED, FRAMES)[2].float()[None] / 255


def psnr(decoded: torch.Tensor, video: torch.Tensor) -> float:
    return -10 * float(torch.log10((decoded - video).square().mean()))


def test_the_linear_codec_is_good_and_its_latents_are_small(linear: LinearCodec, video: torch.Tensor) -> None:
    latents = linear.encode(video)
    assert latents.shape == (1, FRAMES // 4, CONFIG.latent_channels, 12, 20)
    assert 0.3 < float(latents.std()) < 1
    assert psnr(linear.decode(latents), video) > 26


@torch.no_grad()
def test_the_network_starts_as_the_linear_codec(
    linear: LinearCodec, network: TAEHV, video: torch.Tensor
) -> None:
    latents = network.encode(video)
    torch.testing.assert_close(latents, linear.encode(video), atol=1e-4, rtol=0)
    reached = psnr(network.decode(latents), video)
    assert abs(reached - psnr(linear.decode(latents), video)) < 0.2


def test_the_encoder_is_read_back_from_a_network(
    linear: LinearCodec, network: TAEHV, video: torch.Tensor
) -> None:
    found = encoder_of(network)
    assert found is not None
    torch.testing.assert_close(found.encode(video), linear.encode(video), atol=1e-4, rtol=0)
    assert encoder_of(TAEHV()) is None
    learned = deepcopy(network)
    block = next(layer for layer in learned.encoder if isinstance(layer, MemoryBlock))
    block.conv[0].get_parameter("weight").data[0, 0] = 0.1
    assert encoder_of(learned) is None


def test_other_networks_are_refused(linear: LinearCodec) -> None:
    with pytest.raises(ValueError, match="a patch of 16"):
        write(linear, TAEHV(TAEHVConfig(24, 64, (64, 64, 64, 64), 2, 16, (False, False, False))))


@pytest.fixture
def stage(linear: LinearCodec, tmp_path: Path) -> BlockCodecStage:
    """One that finds the linear codec in its folder."""
    save_file(linear.state_dict(), tmp_path / LINEAR)
    return BlockCodecStage(SETTINGS, WORLD, 1, tmp_path)


def test_a_step_has_a_gradient_in_every_weight_of_the_decoder(stage: BlockCodecStage) -> None:
    draw = Draw(0, range(1), torch.Generator().manual_seed(0), random.Random(0), random.Random(0))
    loss, metrics = stage.loss(draw)
    loss.backward()
    assert metrics["psnr"] > 20
    assert all(
        p.grad is not None and bool(p.grad.isfinite().all()) for p in stage.module.decoder.parameters()
    )


def test_windows_weigh_what_has_its_neighbours(stage: BlockCodecStage) -> None:
    for seed in range(4):
        video, weight = stage._window(random.Random(seed))
        assert video.shape == (FRAMES, 3, *CROP)
        assert weight.shape == (FRAMES, 1, *CROP)
        assert 0.4 < float((weight > 0).float().mean()) <= 1


def test_the_mask_covers_the_balloon() -> None:
    scene = next(s for s in map(WORLD.scene, range(100)) if s.facts["path"] == "hover")
    mask = subject_mask(scene, 10, 1, WORLD.height, WORLD.width)
    (x, y), *_ = scene.balloons(10)
    assert mask[0, 0, int(y), int(x)] == 1
    assert 900 < float(mask.sum()) < 2200
