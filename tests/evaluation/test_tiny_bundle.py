"""The bundled model, judged by its world's detector: prompts it never saw, streams as users run them."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pyrf
from pyrf.bundle import load_bundle
from pyrf.evaluation.held_out import evaluate, grade
from pyrf.worlds.choice import WORLDS
from pyrf.worlds.shapes.detector import detect

ASSETS = Path(pyrf.__file__).parent / "assets" / "tiny"
MAX_BYTES = 25 * 10**6
WORLD = WORLDS["shapes"]()


@pytest.fixture(scope="module")
def pipe() -> pyrf.StreamingPipeline:
    return pyrf.StreamingPipeline.from_pretrained("tiny")


def test_it_fits_the_wheel_and_has_a_card() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= MAX_BYTES
    card = (ASSETS / "README.md").read_text()
    assert all(word in card for word in ("Data", "Recipe", "Scores", "minutes"))


def test_its_codec_alone(pipe: pyrf.StreamingPipeline) -> None:
    """What a clip loses in latents, on scenes that no training drew; a chunk at a time, as streams decode."""
    found = []
    for seed in range(8):
        frames = WORLD.scene(seed).render(0, 45)
        latents = pipe.codec.encode(torch.from_numpy(frames)[None])
        decoder = pipe.codec.decoder()
        decoded = torch.cat([decoder.decode(part) for part in latents.split(3, 1)], 1)[0].numpy()
        found.append(-10 * np.log10(np.mean((decoded / 255.0 - frames / 255.0) ** 2)))
    print(f"PSNR {np.mean(found):.1f} dB")
    assert np.mean(found) >= 30


def test_it_follows_prompts(tmp_path: Path) -> None:
    """A little under the scores of its card, as 36 prompts are few; below, it has become worse."""
    scores, _ = evaluate("tiny", WORLD, 36, 5.0, tmp_path / "sheet.png")
    least = {"color": 0.97, "shape": 0.9, "motion": 0.85}
    assert all(scores[name] >= share for name, share in least.items()), scores
    assert scores["frozen"] == scores["lost"] == 0, scores


def test_it_goes_on_after_the_window_is_full(tmp_path: Path) -> None:
    scores, _ = evaluate("tiny", WORLD, 12, 20.0, tmp_path / "sheet.png")
    assert min(scores[name] for name in ("color", "shape", "motion")) >= 0.7, scores
    assert scores["frozen"] == scores["lost"] == 0, scores


def test_a_prompt_switch_shows(pipe: pyrf.StreamingPipeline) -> None:
    """The new colour is there within a chunk or two of the assignment."""
    with pipe.stream("a large red circle moves right on a black background", seed=1) as stream:
        before = np.concatenate([next(stream).frames for _ in range(3)])
        stream.set_prompt("a large blue circle moves right on a black background", recache=True)
        after = np.concatenate([next(stream).frames for _ in range(6)])
    assert detect(before).color == "red"
    assert detect(after[-24:]).color == "blue"


def test_the_pipeline_shows_what_the_scores_judge(pipe: pyrf.StreamingPipeline) -> None:
    prompts = WORLD.held_out(6)
    videos = [pipe(prompt.text, num_frames=80, seed=i).frames for i, prompt in enumerate(prompts)]
    scores = grade(WORLD, videos, prompts)
    assert scores["color"] == 1
    assert scores["shape"] >= 0.8
    assert load_bundle("tiny").stream_config.sink_alpha == pytest.approx(0.999)
