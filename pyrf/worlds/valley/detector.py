"""Reads a valley's attributes and its camera's speed back from pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from pyrf.loop.inference import inference
from pyrf.worlds.valley.attributes import BALLOONS, FPS, HEIGHT, NO_BALLOON, WIDTH
from pyrf.worlds.valley.camera import camera_velocity
from pyrf.worlds.valley.detector_network import CLASSES, FrameReader, half_size
from pyrf.worlds.valley.tracking import balloon_velocity
from pyrf.worlds.world import Facts, Frames

WEIGHTS = Path(__file__).parent / "detector.safetensors"
STILL = 0.08
"""Pixels a frame below which a camera stands still."""
FAST = 1.7
"""Pixels a frame that part slow from fast."""
HOVER = 0.25
"""Pixels a frame below which a balloon hovers."""
SEEN = 0.4
"""Mean probability of nine cells of the map from which they show a balloon."""


@dataclass(frozen=True)
class Detection:
    """What a clip shows.

    Attributes:
        season: None for dunes and the sea.
        balloon, path: None where most frames show no balloon.
        camera: "right", "left" or "still".
        speed: pixels a second that the camera goes right; below 0 it goes left.
        confidence: attribute -> 0..1.
        present: share of the frames in which a balloon is seen.
    """

    time: str
    land: str
    season: str | None
    weather: str
    balloon: str | None
    path: str | None
    camera: str
    speed: float
    confidence: dict[str, float]
    present: float

    def shows(self, name: str, asked: Facts) -> bool:
        """Whether the clip shows what was asked of an attribute; None asks for nothing."""
        wanted = asked[name]
        if wanted is None:
            return True
        if name == "speed":
            return (abs(self.speed) > FAST * FPS) == (wanted == "fast")
        if name == "balloon":
            return (self.balloon or NO_BALLOON) == wanted
        return bool(getattr(self, name) == wanted)


@lru_cache(maxsize=1)
def frame_reader() -> FrameReader:
    """The network that is shipped.

    Raises:
        FileNotFoundError: when its weights are missing.
    """
    if not WEIGHTS.exists():
        raise FileNotFoundError(f"the detector's weights are missing: {WEIGHTS}; train them first")
    network = FrameReader()
    state = {name: tensor.float() for name, tensor in load_file(WEIGHTS).items()}
    network.load_state_dict(state, strict=False)  # counters of batches are not shipped
    return network.eval().requires_grad_(False)


@inference()
def detect(frames: Frames, network: FrameReader | None = None) -> Detection:
    """Read a clip, uint8 [T, 192, 320, 3]; T of 12 or more, and surer with 80.

    Args:
        network: in place of the one that is shipped.

    Raises:
        ValueError: when the clip has another shape or dtype, or fewer than two frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (HEIGHT, WIDTH, 3):
        raise ValueError(
            f"frames must be uint8 [T, {HEIGHT}, {WIDTH}, 3], got {frames.dtype} {list(frames.shape)}"
        )
    if len(frames) < 2:
        raise ValueError(f"a clip has at least 2 frames, got {len(frames)}")
    network = network or frame_reader()
    clip = torch.from_numpy(np.ascontiguousarray(frames))
    parts = [network(half_size(part)) for part in clip.split(16)]
    values: dict[str, str | None] = {}
    confidence: dict[str, float] = {}
    for name, classes in CLASSES.items():
        chance = torch.cat([logits[name] for logits, _ in parts]).softmax(1).mean(0)
        values[name] = classes[int(chance.argmax())]
        confidence[name] = float(chance.max())
    chances = torch.cat([map_logits for _, map_logits in parts]).softmax(1)
    balloon, path, present = _balloon(clip, chances, confidence)
    velocity, confidence["camera"] = camera_velocity(clip)
    camera = "still" if abs(velocity) < STILL else ("right" if velocity > 0 else "left")
    confidence["speed"] = confidence["camera"]
    return Detection(
        time=str(values["time"]),
        land=str(values["land"]),
        season=values["season"],
        weather=str(values["weather"]),
        balloon=balloon,
        path=path,
        camera=camera,
        speed=velocity * FPS,
        confidence=confidence,
        present=present,
    )


def _balloon(
    clip: Tensor, chances: Tensor, confidence: dict[str, float]
) -> tuple[str | None, str | None, float]:
    """Colour, path, and share of frames with a balloon.

    clip: uint8 [T, H, W, 3]; chances: [T, 1 + colours, rows, columns].
    """
    # a balloon fills several cells: a lonely one is something else
    colors = F.avg_pool2d(chances[:, 1:], 3, stride=1, padding=1)
    best = colors.sum(1).amax((1, 2))
    is_seen = best > SEEN
    present = float(is_seen.float().mean())
    if present < 0.3:
        confidence["balloon"] = confidence["path"] = 1 - float(best.mean())
        return None, None, present
    weight = (colors * (colors > 0.5 * SEEN)).sum((0, 2, 3))
    color = int(weight.argmax())
    confidence["balloon"] = float(weight[color] / weight.sum())
    velocity = balloon_velocity(clip, colors[:, color], 0.5 * SEEN)
    if velocity is None:
        confidence["path"] = 0.0
        return list(BALLOONS)[color], None, present
    right, down = velocity
    if max(abs(right), abs(down)) < HOVER:
        path = "hover"
    elif abs(right) > abs(down):
        path = "right" if right > 0 else "left"
    else:
        path = "sink" if down > 0 else "rise"
    margin = abs(max(abs(right), abs(down)) - HOVER)
    confidence["path"] = min(1.0, 0.5 + 2 * margin)
    return list(BALLOONS)[color], path, present
