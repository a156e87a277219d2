"""Optical flow for the motion score: how near the truth, and how fast; and the whole score.

    python benchmarks/optical_flow.py

The speed of an object is the flow's length where the picture changes. Clips are true ones of the shapes
world, one in straight motion each; one thread; milliseconds are processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from pyrf.evaluation.scores.calibrate_motion import speed_open_scenes
from pyrf.evaluation.scores.motion import QUARTER, _change, _contrast, _speed, raw_scores

NUM_CLIPS = 30
NUM_FRAMES = 33
BATCH = 16
Method = Callable[[Any, Any], Any]
"""The flow from one grey picture to another, pixels (x, y): float32 [H, W, 2]."""


def methods() -> dict[str, Method]:
    def dis(preset: int) -> Method:
        flow: Any = cv2.DISOpticalFlow.create(preset)  # its types leave out that the flow may be None
        return lambda a, b: flow.calc(a, b, None)

    def farneback(a: Any, b: Any) -> Any:
        flow = np.empty((*a.shape, 2), np.float32)
        return cv2.calcOpticalFlowFarneback(
            a, b, flow, pyr_scale=0.5, levels=3, winsize=9, iterations=2, poly_n=5, poly_sigma=1.1, flags=0
        )

    return {
        "DIS ultrafast": dis(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
        "DIS fast": dis(cv2.DISOPTICAL_FLOW_PRESET_FAST),
        "DIS medium": dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
        "Farneback": farneback,
    }


def main() -> None:
    cv2.setNumThreads(1)
    scenes = [s for s in speed_open_scenes(60, "flow") if s.attributes.motion != "bounce"][:NUM_CLIPS]
    pictures = [_contrast(scene.render(0, NUM_FRAMES)) for scene in scenes]
    truth = np.array([scene.speed for scene in scenes])
    print(f"| flow | frames apart | ms | correlation | relative error |  OpenCV {cv2.__version__}")
    for apart in (1, QUARTER):
        for name, method in methods().items():
            estimates, spent = [], 0.0
            for picture in pictures:
                begin, end = picture[:-apart:apart], picture[apart::apart]
                start = time.process_time()
                flow = np.stack([method(a, b) for a, b in zip(begin, end)])
                spent += (time.process_time() - start) / len(begin) / len(pictures)
                estimates.append(_speed(flow, _change(begin, end)) / apart)
            correlation = np.corrcoef(truth, estimates)[0, 1]
            error = np.abs(np.array(estimates) / truth - 1).mean()
            print(f"| {name} | {apart} | {1e3 * spent:.2f} | {correlation:.3f} | {error:.2f} |")
    print(f"the whole score, {BATCH} clips: {score_seconds():.3f} s, the least of 5")


def score_seconds() -> float:
    """Processor time for a batch; the least of several, since other work disturbs it."""
    clips = np.stack([s.render(0, NUM_FRAMES) for s in speed_open_scenes(BATCH, "time")])
    spent = []
    for _ in range(5):
        start = time.process_time()
        raw_scores(clips)
        spent.append(time.process_time() - start)
    return min(spent)


if __name__ == "__main__":
    main()
