"""What the bundled model shows of blends and on the way of transitions, as its detector reads it.

python benchmarks/prompts_over_time.py --seeds 4
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from pyrf.pipeline import StreamingPipeline
from pyrf.threads import set_threads
from pyrf.video.writer import Frames
from pyrf.worlds.shapes.detector import detect

RED = "a large red circle moves right slowly on a grey background"
BLUE = "a large blue circle moves right slowly on a grey background"
SQUARE = "a large red square moves right slowly on a grey background"
SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
BEFORE, AFTER = 4, 10
"""Chunks of a stream until its prompt changes, and from there on."""


def read(frames: Frames) -> tuple[str, float]:
    """What is seen, and how well it fits a shape."""
    seen = detect(frames)
    return ("nothing" if seen.shape is None else f"{seen.color} {seen.shape}"), seen.fit


def tell(name: str, seen: list[tuple[str, float]]) -> None:
    counts = Counter(what for what, _ in seen)
    told = ", ".join(f"{what} {count}" for what, count in counts.most_common())
    print(f"{name:>22}  {told:<40} fit {np.mean([fit for _, fit in seen]):.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_threads(options.threads)
    pipe, seeds = StreamingPipeline.from_pretrained("tiny"), range(options.seeds)
    for name, other in (("blue", BLUE), ("square", SQUARE)):
        for share in SHARES:
            mix = [(RED, 1 - share), (other, share)]
            tell(f"{share:g} {name}", [read(pipe(mix, num_frames=45, seed=seed).frames) for seed in seeds])
    for over, recache in ((0.0, False), (0.0, True), (2.0, False), (2.0, True), (4.0, False)):
        streams = []
        for seed in seeds:
            with pipe.stream(RED, seed=seed) as stream:
                for _ in range(BEFORE):
                    next(stream)
                stream.set_prompt(BLUE, over=over, recache=recache)
                streams.append([read(next(stream).frames) for _ in range(AFTER)])
        print(f"over {over:g} s{', recached' if recache else ''}:")
        for i, seen in enumerate(zip(*streams)):
            tell(f"chunk {i}", list(seen))


if __name__ == "__main__":
    main()
