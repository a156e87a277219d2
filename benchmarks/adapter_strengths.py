"""What the strengths of a trained adapter show, and what a change costs.

    pyrf train tiny-lora --out runs/lora
    python benchmarks/adapter_strengths.py runs/lora/twin/adapter.safetensors --threads 1

Held-out prompts of the bundled model are streamed at each strength. "twin" is how much of the shape is seen
once more, half a frame beside it. The detector reads the rest.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from pyrf.pipeline import StreamingPipeline
from pyrf.threads import set_threads
from pyrf.training.lora.twin import twin_seen
from pyrf.worlds.shapes.detector import detect
from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.world import Frames, WorldPrompt

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
PROMPTS, FRAMES, SETTLED = 32, 57, 9
"""How many, the length of their videos, and the frames in which a stream finds its shape."""


KEPT = ("color", "shape", "background")
"""What the detector reads in a picture of two shapes as in one of one."""


def videos(pipe: StreamingPipeline, prompts: list[WorldPrompt]) -> list[Frames]:
    made = pipe([prompt.text for prompt in prompts], FRAMES, list(range(len(prompts))))
    return [video.frames for video in made]


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
    prompts = ShapesWorld().held_out(PROMPTS)
    base = StreamingPipeline.from_pretrained("tiny")
    pipe = StreamingPipeline.from_pretrained("tiny", adapters=[(arguments.adapter, 1.0, "twin")])
    expected = videos(base, prompts)

    print("strength  twin (min..max)     " + "".join(f"{name:>12}" for name in KEPT))
    for strength in STRENGTHS:
        pipe.set_adapters({"twin": strength})
        made = videos(pipe, prompts)
        twins = [twin_seen(frames[SETTLED:]) for frames in made]
        seen = [detect(frames[SETTLED:]) for frames in made]
        kept = [
            np.mean([d.shows(name, p.asks) for d, p in zip(seen, prompts) if p.asks.get(name) is not None])
            for name in KEPT
        ]
        print(
            f"{strength:8.2f}  {np.mean(twins):.2f} ({min(twins):.2f}..{max(twins):.2f})  "
            + "".join(f"{share:12.2f}" for share in kept)
        )
        if strength == 0:
            same = all(np.array_equal(a, b) for a, b in zip(made, expected))
            print(f"          strength 0 gives the base's bytes: {same}")

    times: dict[str, list[float]] = {"without": [], "merged": []}
    for _ in range(arguments.rounds):
        times["without"] += chunk_times(base, 12)
        times["merged"] += chunk_times(pipe, 12)
    medians = {name: 1e3 * statistics.median(found) for name, found in times.items()}
    print(f"a chunk, ms, alternating medians: {medians}")
    spent = []
    for i in range(20):
        pipe.set_adapters({"twin": i % 2})
        start = time.perf_counter()
        with pipe.model.adapters.chunk():
            spent.append(time.perf_counter() - start)
    print(f"a change of strength, ms: {1e3 * statistics.median(spent):.2f}")


if __name__ == "__main__":
    main()
