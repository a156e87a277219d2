"""Clips that change without moving, or move without staying what they are: what a motion score must not pay.

Each entry of `STILL_FAKES` makes one from a scene and a random generator. They are uint8 [T, H, W, 3].
"""

import dataclasses

import numpy as np

from pyrf.worlds.shapes.attributes import COLORS, HEIGHT, SHAPES, WIDTH
from pyrf.worlds.shapes.scenes import Scene

NUM_FRAMES = 33
CENTRE = (WIDTH / 2, HEIGHT / 2)
TIME = np.arange(NUM_FRAMES)


def clipped(frames):
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def placed(scene: Scene, positions, radii=None):
    """The scene's object put at a position (x, y) a frame, maybe with a radius a frame."""
    attributes = dataclasses.replace(scene.attributes, motion="still")
    radii = [scene.radius] * len(positions) if radii is None else radii
    frames = [
        dataclasses.replace(scene, attributes=attributes, start=tuple(at), radius=radius).render(0, 1)[0]
        for at, radius in zip(positions, radii)
    ]
    return np.stack(frames)


def still(scene: Scene):
    return placed(scene, [CENTRE] * NUM_FRAMES)


def empty(scene: Scene):
    """The background alone: the object's edge turned inside out has no pixels."""
    return placed(scene, [CENTRE] * NUM_FRAMES, [-2.0] * NUM_FRAMES)


def moving(scene: Scene, speed: float | None = None):
    return dataclasses.replace(scene, speed=scene.speed if speed is None else speed).render(0, NUM_FRAMES)


def spots(rng, count=NUM_FRAMES):
    return rng.uniform((20, 20), (WIDTH - 20, HEIGHT - 20), (count, 2))


def shake(period):
    """Offsets [T, 2], to and fro by 6 pixels in `period` frames."""
    return np.stack([6 * np.sin(2 * np.pi * TIME / period), 0 * TIME], axis=1)


def time_column(values):
    return np.asarray(values, np.float64)[:, None, None, None]


def coarse_noise(rng, sigma, cell):
    """Noise in blocks of cell x cell pixels, new in each frame."""
    small = rng.normal(0, sigma, (NUM_FRAMES, HEIGHT // cell, WIDTH // cell, 1))
    return small.repeat(cell, 1).repeat(cell, 2)


def chosen(where, one, other):
    """Frames of `one` where the condition holds, else of `other`."""
    return np.where(time_column(where).astype(bool), one, other)


def crossfaded(keys, steps):
    """From key to key, each over `steps` frames."""
    time = np.arange(NUM_FRAMES) / steps
    before = keys[time.astype(int)].astype(float)
    after = keys[time.astype(int) + 1].astype(float)
    return clipped(before + (after - before) * time_column(time % 1))


def trail(scene: Scene):
    """A moving object that paints: where it has been stays its colour."""
    background = empty(scene).astype(int)
    painted = np.abs(moving(scene).astype(int) - background).max(-1, keepdims=True) > 20
    painted = np.maximum.accumulate(painted, axis=0)
    return np.where(painted, COLORS[scene.attributes.color], background).astype(np.uint8)


def recoloured(scene: Scene):
    """A moving object that has another colour every four frames."""
    frames = []
    for time in range(NUM_FRAMES):
        attributes = dataclasses.replace(scene.attributes, color=list(COLORS)[time // 4 % len(COLORS)])
        frames.append(dataclasses.replace(scene, attributes=attributes).render(time, 1)[0])
    return np.stack(frames)


def morphing(scene: Scene):
    """A moving object that has another shape every two frames; sizes give near-equal areas."""
    frames = []
    for time in range(NUM_FRAMES):
        attributes = dataclasses.replace(scene.attributes, shape=SHAPES[time // 2 % len(SHAPES)])
        frames.append(dataclasses.replace(scene, attributes=attributes).render(time, 1)[0])
    return np.stack(frames)


STILL_FAKES = {
    "grain": lambda s, rng: clipped(still(s) + rng.normal(0, 6, (NUM_FRAMES, HEIGHT, WIDTH, 1))),
    "noise": lambda s, rng: clipped(still(s) + rng.normal(0, 25, (NUM_FRAMES, HEIGHT, WIDTH, 3))),
    "white noise": lambda s, rng: rng.integers(0, 256, (NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8),
    "flicker in blocks": lambda s, rng: clipped(still(s) + coarse_noise(rng, 20, 8)),
    "brightness flicker": lambda s, rng: clipped(still(s) * time_column(rng.uniform(0.7, 1.3, NUM_FRAMES))),
    "brightness wave": lambda s, rng: clipped(still(s) * time_column(1 + 0.3 * np.sin(TIME / 3))),
    "brightness ramp": lambda s, rng: clipped(still(s) * time_column(np.linspace(0.5, 1.5, NUM_FRAMES))),
    "blink": lambda s, rng: chosen(TIME // 4 % 2, still(s), empty(s)),
    "strobe": lambda s, rng: chosen(TIME % 2, still(s), empty(s)),
    "fade out": lambda s, rng: crossfaded(np.stack([still(s)[0], empty(s)[0], empty(s)[0]]), NUM_FRAMES - 1),
    "jumps": lambda s, rng: placed(s, spots(rng)),
    "jumps and rests": lambda s, rng: placed(s, spots(rng, 9).repeat(4, 0)[:NUM_FRAMES]),
    "jitter": lambda s, rng: placed(s, np.array(CENTRE) + rng.uniform(-3, 3, (NUM_FRAMES, 2))),
    "shaking, 4 Hz": lambda s, rng: placed(s, np.array(CENTRE) + shake(4)),
    "shaking, 2 Hz": lambda s, rng: placed(s, np.array(CENTRE) + shake(8)),
    "shaking, 1 Hz": lambda s, rng: placed(s, np.array(CENTRE) + shake(16)),
    "fades elsewhere": lambda s, rng: crossfaded(placed(s, spots(rng, 6)), 8),
    "crossfade": lambda s, rng: crossfaded(
        rng.integers(0, 256, (6, 4, 6, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2), 8
    ),
    "cuts": lambda s, rng: (
        rng.integers(0, 256, (NUM_FRAMES, 4, 6, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    ),
    "growth": lambda s, rng: placed(s, [CENTRE] * NUM_FRAMES, np.linspace(4, 20, NUM_FRAMES)),
    "breathing": lambda s, rng: placed(s, [CENTRE] * NUM_FRAMES, s.radius * (1 + 0.4 * np.sin(TIME / 3))),
}
"""Nothing moves here, however much changes."""

MOVING_FAKES = {
    "blinks": lambda s, rng: chosen(TIME % 6 < 4, moving(s), empty(s)),
    "jumps on": lambda s, rng: np.concatenate([s.render(31 * n, 8) for n in range(5)])[:NUM_FRAMES],
    "is recoloured": lambda s, rng: recoloured(s),
    "morphs": lambda s, rng: morphing(s),
    "leaves a trail": lambda s, rng: trail(s),
    "random walk": lambda s, rng: placed(s, np.array(CENTRE) + rng.normal(0, 2, (NUM_FRAMES, 2)).cumsum(0)),
    "shivers": lambda s, rng: placed(s, np.stack([20 + 1.2 * TIME + 5 * (TIME % 2), 0 * TIME + 32], axis=1)),
    "fades": lambda s, rng: clipped(
        moving(s) + (empty(s).astype(float) - moving(s)) * time_column(TIME / (NUM_FRAMES - 1))
    ),
}
"""Something moves here, but does not stay what it was or keep its course."""
