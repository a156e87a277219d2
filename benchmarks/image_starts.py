"""How well each start from an image goes on, on the bundled model `tiny`.

    python benchmarks/image_starts.py --threads 1

An image of the shapes world begins a stream by each of `pyrf.config.STARTS`. Its prompt names colour, shape
and motion; size, background and place are the image's alone. Measured are steps between frames, as mean
levels of 0..255, and what the world's detector reads in the first two seconds:

    image         from the image to the frame that follows it
    border        the largest step up to the end of the first chunk, that from the image included
    inside        the median step after the first chunk
    border/inside of the two, the median over the clips
    smoothest     share of clips whose border/inside is the least of both starts
    jumps         share of clips whose object is lost or moves by more than 8 pixels between two frames
    kept          share of clips that show the attribute of the image
    moves         share of clips whose motion is the prompt's
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pyrf import StreamingPipeline
from pyrf.config import STARTS, StartKind
from pyrf.machine import processor
from pyrf.worlds.shapes.captions import caption
from pyrf.worlds.shapes.detector import detect
from pyrf.worlds.shapes.grading import JUMP
from pyrf.worlds.shapes.scenes import Scene
from pyrf.worlds.shapes.world import ShapesWorld

ATTRIBUTES = ("color", "shape", "size", "background")
SECONDS = 2.0


class Begun(NamedTuple):
    """How one stream began.

    Attributes:
        image, border, inside: steps, see above.
        jumps, moves: whether it does.
        kept: attribute -> whether it is the image's.
    """

    image: float
    border: float
    inside: float
    jumps: bool
    moves: bool
    kept: dict[str, bool]

    @property
    def ratio(self) -> float:
        """Of border and inside."""
        return self.border / max(self.inside, 1e-3)


def steps(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean difference of each frame of [T, H, W, 3] to the next one, [T - 1], in levels."""
    return np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3))


def begin(pipe: StreamingPipeline, scene: Scene, seed: int, kind: StartKind) -> Begun:
    """Begin a stream with a scene's first frame."""
    image = scene.render(0, 1)[0]
    prompt = caption(replace(scene.attributes, speed=None), random.Random(seed), named=0.0)
    count = round(SECONDS * pipe.fps)
    frames = pipe(prompt, num_frames=count, seed=seed, image=image, start=kind).frames
    seen = detect(frames)
    shown = np.concatenate([image[None], frames])
    change = steps(shown)
    first = pipe.model.start_of_chunk(1, continues=kind == "still")
    return Begun(
        image=float(change[0]),
        border=float(change[: first + 1].max()),
        inside=float(np.median(change[first + 1 :])),
        jumps=not detect(shown).jump < JUMP,
        moves=seen.motion == scene.attributes.motion,
        kept={name: getattr(seen, name) == getattr(scene.attributes, name) for name in ATTRIBUTES},
    )


def figures(begun: list[Begun]) -> dict[str, float]:
    """The figures of one kind of start."""
    result = {
        name: statistics.median(getattr(one, name) for one in begun) for name in ("image", "border", "inside")
    }
    result["border/inside"] = statistics.median(one.ratio for one in begun)
    result |= {name: statistics.mean(getattr(one, name) for one in begun) for name in ("jumps", "moves")}
    return result | {f"kept {name}": statistics.mean(one.kept[name] for one in begun) for name in ATTRIBUTES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny", help="of the shapes world")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipe = StreamingPipeline.from_pretrained(arguments.model)
    world = ShapesWorld()
    scenes = [
        world.scene_for(prompt, random.Random(i)) for i, prompt in enumerate(world.held_out(arguments.clips))
    ]
    begun = {kind: [begin(pipe, scene, seed, kind) for seed, scene in enumerate(scenes)] for kind in STARTS}
    result = {kind: figures(each) for kind, each in begun.items()}
    least = [min(one.ratio for one in clip) for clip in zip(*begun.values())]
    for kind, each in begun.items():
        result[kind]["smoothest"] = statistics.mean(one.ratio == low for one, low in zip(each, least))
    print(f"{'':16}" + "".join(f"{kind:>14}" for kind in result))
    for name in result["still"]:
        print(f"{name:16}" + "".join(f"{row[name]:14.2f}" for row in result.values()))
    method = {**vars(arguments), "processor": processor(), "torch": torch.__version__}
    print(json.dumps({"method": method, "result": result}))


if __name__ == "__main__":
    main()
