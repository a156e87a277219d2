"""The stage of ODE regression: guided paths with a known end, and one noise level per chunk."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyrf.config import StreamConfig
from pyrf.loop.schedule import TIMESTEPS
from pyrf.models.dit.model import PromptCache
from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo
from pyrf.training.stages.data import Given, PathStart
from pyrf.training.stages.networks import TextToVideo
from pyrf.training.stages.ode import OdeSettings, OdeStage
from pyrf.training.stages.paths import END, STATES
from pyrf.worlds.shapes.captions import vocabulary
from tests.support import networks
from tests.support.line_stage import draw_of

BATCH, FRAMES, CHUNK = 4, 12, 3
SIZES = NetworkSettings(dim=32, ffn_dim=64, num_heads=2, num_layers=2)
SHAPE = (BATCH, FRAMES, 16, 4, 6)


class KnownPaths:
    """Teacher paths of constant velocity: 2 with the caption, -1 without one.

    Attributes:
        seen: timesteps [B, F] and noisy latents of each call of the student.
    """

    chunk_frames = CHUNK

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def start(self, index: int) -> PathStart:
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(index))
        return PathStart(noise, ["a red circle"] * BATCH, {"weights": torch.ones(BATCH, FRAMES // CHUNK)})

    def teach(
        self, network: TextToVideo, x: Tensor, timesteps: Tensor, prompt: PromptCache, given: Given
    ) -> Tensor:
        half = len(x) // 2
        return torch.cat([torch.full_like(x[:half], 2.0), torch.full_like(x[half:], -1.0)])

    def learn(
        self, network: TextToVideo, x: Tensor, timesteps: Tensor, prompt: PromptCache, given: Given
    ) -> Tensor:
        self.seen.append((timesteps, x))
        return torch.zeros_like(x, requires_grad=True)


def made(folder: Path, paths: KnownPaths, **settings: Any) -> OdeStage:
    torch.manual_seed(0)
    return OdeStage(
        OdeSettings(paths=1, **settings),
        teacher=ScratchTextToVideo(SIZES, vocabulary()),
        student=ScratchTextToVideo(SIZES, vocabulary()),
        data=None,  # type: ignore[arg-type]  # what is scored, and here nothing is
        paths=paths,
        codec=networks.codec(),
        stream=StreamConfig(shift=3.0),
        batch=BATCH,
        folder=folder,
        origin="test",
    )


@pytest.mark.parametrize(("scale", "velocity"), [(0.0, -1.0), (1.0, 2.0), (3.0, 8.0)])
def test_paths_are_guided_away_from_no_caption(tmp_path: Path, scale: float, velocity: float) -> None:
    """A scale of 0 leaves the caption out, one of 1 is the caption's own velocity, -1 + 3 (2 + 1) is 8."""
    paths = KnownPaths()
    stage = made(tmp_path, paths, guidance_scale=scale)
    draw = draw_of(0)
    tensors, _ = stage.shards.read(BATCH, draw.rng)
    noise = paths.start(0).noise
    assert stage.sigmas[0] == 1
    torch.testing.assert_close(tensors[END], noise - velocity, rtol=0, atol=1e-2)
    for level, sigma in enumerate(stage.sigmas):
        expected = noise - velocity * (1 - sigma)
        torch.testing.assert_close(tensors[STATES][:, level], expected, rtol=0, atol=1e-2)


def test_a_chunk_has_one_noise_level_and_its_neighbours_another(tmp_path: Path) -> None:
    """As in a stream, where all frames of a chunk are denoised together."""
    paths = KnownPaths()
    stage = made(tmp_path, paths, guidance_scale=1.0)
    for step in range(8):
        stage.loss(draw_of(step))
    noise, levels = paths.start(0).noise, set()
    for timesteps, x in paths.seen:
        chunks = timesteps.unflatten(1, (-1, CHUNK))
        assert torch.equal(chunks, chunks[..., :1].expand_as(chunks))
        sigma = (timesteps / TIMESTEPS)[..., None, None, None]
        torch.testing.assert_close(x, noise - 2 * (1 - sigma), rtol=0, atol=1e-2)
        levels |= set(timesteps.flatten().tolist())
    assert sorted(levels) == sorted((TIMESTEPS * stage.sigmas).tolist())
    assert any(len(set(row.tolist())) > 1 for timesteps, _ in paths.seen for row in timesteps)
