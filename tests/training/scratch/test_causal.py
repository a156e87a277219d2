"""Teacher forcing in training sees what a stream's cache sees."""

import random

import pytest
import torch

from pyrf.config import LatentSize, StreamConfig
from pyrf.models.dit.rollout import ModelRollout
from pyrf.training.scratch.causal import CHUNKS, CausalForcing
from pyrf.training.scratch.latents import LatentScenes, _times
from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo
from pyrf.worlds.shapes.captions import COLOR_WORDS, vocabulary
from pyrf.worlds.shapes.world import ShapesWorld

SCENES = LatentScenes(ShapesWorld(), range(4), *(torch.randn(4, n, 16, 4, 6) for n in (9, 6, 6)))
STREAM = StreamConfig(shift=3.0)


def test_scenes_of_open_speed_move_and_name_no_speed() -> None:
    parts = [torch.arange(60.0)[:, None].expand(60, n) for n in (9, 6, 6)]
    scenes = LatentScenes(ShapesWorld(), range(100, 160), *parts)
    chosen = scenes.of_open_speed()
    assert 0 < len(chosen) < len(scenes)
    for i, seed in enumerate(scenes.seeds):
        facts = scenes.world.scene(seed).facts
        assert (seed in chosen.seeds) == (facts["speed"] is None and facts["motion"] != "still"), i
    for part in (chosen.near, chosen.far, chosen.turned):
        assert [seed - 100 for seed in chosen.seeds] == part[:, 0].tolist()
    still = LatentScenes(ShapesWorld(motions=("still",)), range(60), *parts)
    with pytest.raises(ValueError, match="none of 60 scenes"):
        still.of_open_speed()


def network() -> ScratchTextToVideo:
    torch.manual_seed(0)
    model = ScratchTextToVideo(NetworkSettings(dim=32, ffn_dim=64, num_heads=2, num_layers=2), vocabulary())
    torch.nn.init.normal_(model.dit.head.head.weight, std=0.1)
    return model.eval()


@torch.no_grad()
def test_forcing_equals_a_stream_over_given_chunks() -> None:
    """The velocity of each noisy chunk is the one a denoise call gives with the clean chunks in the cache."""
    model, forcing = network(), CausalForcing(SCENES, STREAM, 2, 0.0)
    generator = torch.Generator().manual_seed(0)
    clean, _, captions, _ = forcing.draw(generator, random.Random(0), drop=0.0)
    noisy = torch.randn(clean.shape, generator=generator)
    prompt = model.prompt(captions)
    timesteps = forcing.per_frame(torch.tensor([[900.0, 500.0, 750.0]] * 2))
    parallel = forcing.forward(model, clean, noisy, timesteps, prompt)

    rollout = ModelRollout(model.dit, STREAM, prompt, LatentSize(4, 6))
    cache, attention = rollout.cache, rollout.attention
    for i, (x, t, x0) in enumerate(
        zip(noisy.chunk(CHUNKS, 1), timesteps.chunk(CHUNKS, 1), clean.chunk(CHUNKS, 1))
    ):
        cache.begin_chunk()
        flow = model.dit(x, t[:, 0], prompt, attention=attention)
        torch.testing.assert_close(parallel[:, 3 * i : 3 * i + 3], flow, rtol=1e-4, atol=1e-5)
        model.dit.write_cache(x0, torch.zeros(2), prompt, attention=attention)
        cache.commit()


def test_a_late_sample_joins_beginning_and_end() -> None:
    """Where the sink is from long before, the chunk after it is not asked to follow it."""
    forcing = CausalForcing(SCENES, STREAM, 64, 0.0)
    clean, _, _, weights = forcing.draw(torch.Generator().manual_seed(0), random.Random(0), drop=0.0)
    late = weights[:, 1] == 0
    assert 16 < int(late.sum()) < 48
    assert weights[:, [0, 2]].min() == 1
    fars = {tuple(far.flatten()[:4].tolist()) for far in SCENES.far}
    for sample, is_late in zip(clean, late):
        assert (tuple(sample[3:].flatten()[:4].tolist()) in fars) == bool(is_late)


def test_a_turned_sample_is_what_the_scene_was_and_what_it_becomes() -> None:
    """Only chunks that the caption of the turned scene describes are learned from."""
    forcing = CausalForcing(SCENES, STREAM, 64, 0.0, turns=1.0)
    clean, cells, captions, weights = forcing.draw(
        torch.Generator().manual_seed(0), random.Random(0), drop=0.0
    )
    assert {tuple(row) for row in weights.tolist()} == {(0, 0, 1), (0, 1, 1)}
    near, _, turned = SCENES.subjects
    for sample, seen, caption, row in zip(clean, cells, captions, weights.tolist()):
        first = 0 if row == [0, 0, 1] else 3
        scene = next(i for i in range(4) if torch.equal(SCENES.near[i, first], sample[0]))
        assert torch.equal(
            sample, torch.cat([SCENES.near[scene, first:6], SCENES.turned[scene, : first + 3]])
        )
        assert torch.equal(seen, torch.cat([near[scene, first:6], turned[scene, : first + 3]]))
        world = SCENES.world
        turn = world.turned(scene, _frame_of_turn(scene), random.Random(f"turn {scene}"))
        assert turn is not None
        assert set(COLOR_WORDS[str(turn.scene.facts["color"])]) & set(caption.split())
        assert turn.scene.facts["color"] != world.scene(scene).facts["color"]


def _frame_of_turn(seed: int) -> int:
    _, begin, _ = _times(SCENES.world, seed)
    return begin + 4 * (1 + 6)


def test_a_third_of_the_samples_may_turn() -> None:
    forcing = CausalForcing(SCENES, STREAM, 300, 0.0, turns=0.3)
    *_, weights = forcing.draw(torch.Generator().manual_seed(0), random.Random(0), drop=0.0)
    counts = {
        kind: weights.tolist().count(list(kind)) for kind in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1))
    }
    assert sum(counts.values()) == 300
    assert 60 < counts[0, 0, 1] + counts[0, 1, 1] < 120
    assert min(counts.values()) > 25
