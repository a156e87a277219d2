"""What the strengths of a trained adapter show, and what a change costs.

    pyrf train tiny-lora --out runs/lora
    python benchmarks/adapter_strengths.py runs/lora/yellow/adapter.safetensors --threads 1

Prompts of the bundled model that name the colour are streamed at each strength, after others that do not.
"turned" is how near the shape is to the colour of the adapter: 0 is its own. The detector reads the rest.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from pyrf.pipeline import StreamingPipeline
from pyrf.threads import set_threads
from pyrf.training.kinds import load_recipe
from pyrf.training.lora.recipe import LoraRecipe
from pyrf.training.lora.recolor import turned
from pyrf.worlds.shapes.detector import detect
from pyrf.worlds.world import Frames

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FRAMES, SEEDS = 33, 2
SHAPES, OTHERS = ("circle", "square", "triangle"), ("red", "green", "purple", "white")
MOTION = "right"


def prompt(color: str, shape: str) -> str:
    return f"a large {color} {shape} moves right on a grey background"


def videos(pipe: StreamingPipeline, colors: tuple[str, ...]) -> list[tuple[str, str, Frames]]:
    """Colour, shape and video of every prompt and seed."""
    wanted = [(color, shape, seed) for color in colors for shape in SHAPES for seed in range(SEEDS)]
    made = pipe([prompt(color, shape) for color, shape, _ in wanted], FRAMES, [seed for *_, seed in wanted])
    return [(color, shape, video.frames) for (color, shape, _), video in zip(wanted, made)]


def chunk_times(pipe: StreamingPipeline, chunks: int) -> list[float]:
    with pipe.stream("a blue square moves right") as stream:
        return [next(stream).timing.total for _ in range(chunks)][2:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    recipe = load_recipe("tiny-lora")
    assert isinstance(recipe, LoraRecipe)
    change = recipe.stages["yellow"].recolor
    base = StreamingPipeline.from_pretrained("tiny")
    pipe = StreamingPipeline.from_pretrained("tiny", adapters=[(arguments.adapter, 1.0, "yellow")])
    expected = videos(base, (change.color,))

    print("strength  turned (min..max)      shape  motion  others keep their colour")
    for strength in STRENGTHS:
        pipe.set_adapters({"yellow": strength})
        named, others = videos(pipe, (change.color,)), videos(pipe, OTHERS)
        how_far = [turned(frames, change.color, change.becomes) for _, _, frames in named]
        seen = [(shape, detect(frames)) for _, shape, frames in named]
        shapes = np.mean([found.shape == shape for shape, found in seen])
        motions = np.mean([found.motion == MOTION for _, found in seen])
        kept = np.mean([detect(frames).color == color for color, _, frames in others])
        print(
            f"{strength:8.2f}  {np.mean(how_far):.2f} ({min(how_far):.2f}..{max(how_far):.2f})  "
            f"{shapes:10.2f}  {motions:6.2f}  {kept:10.2f}"
        )
        if strength == 0:
            same = all(np.array_equal(a, b) for (_, _, a), (_, _, b) in zip(named, expected))
            print(f"          strength 0 gives the base's bytes: {same}")

    times: dict[str, list[float]] = {"without": [], "merged": []}
    for _ in range(arguments.rounds):
        times["without"] += chunk_times(base, 12)
        times["merged"] += chunk_times(pipe, 12)
    medians = {name: 1e3 * statistics.median(found) for name, found in times.items()}
    print(f"a chunk, ms, alternating medians: {medians}")
    spent = []
    for i in range(20):
        pipe.set_adapters({"yellow": i % 2})
        start = time.perf_counter()
        with pipe.model.adapters.chunk():
            spent.append(time.perf_counter() - start)
    print(f"a change of strength, ms: {1e3 * statistics.median(spent):.2f}")


if __name__ == "__main__":
    main()
