"""VBench in small: a list of prompts, and an environment with a stand-in that answers as the real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from pyrf.video.files import Video

INFO = [
    {"prompt_en": "a cat runs", "dimension": ["subject_consistency", "imaging_quality"]},
    {"prompt_en": "a red car", "dimension": ["color"]},
    {"prompt_en": "two dogs", "dimension": ["multiple_objects", "imaging_quality"]},
    {"prompt_en": "a red car", "dimension": ["object_class"]},
]

STAND_IN = """
import json, os, sys

class VBench:
    def __init__(self, device, info, out):
        assert os.path.isabs(info) and device == "device cpu", device
        self.out = out

    def evaluate(self, videos_path, name, dimension_list, mode, imaging_quality_preprocessing_mode):
        assert imaging_quality_preprocessing_mode == "longer"
        if "color" in dimension_list:
            sys.exit("CUDA out of memory")
        names = sorted(n for n in os.listdir(videos_path) if n.endswith(".mp4"))
        values = [70.0 + i % 2 for i in range(len(names))]
        paths = [os.path.join(videos_path, n) for n in names]
        videos = [{"video_path": p, "video_results": v} for p, v in zip(paths, values)]
        score = sum(values) / len(values) / 100
        with open(os.path.join(self.out, name + "_eval_results.json"), "w") as file:
            json.dump({dimension_list[0]: [score, videos]}, file)
"""


def write_info(folder: Path) -> Path:
    """A VBench_full_info.json."""
    path = folder / "VBench_full_info.json"
    path.write_text(json.dumps(INFO))
    return path


def write_video(path: Path, num_frames: int, height: int, width: int, fps: int) -> None:
    """A video whose grey rises."""
    levels = np.linspace(0, 200, num_frames).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3))
    Video(np.ascontiguousarray(frames), fps).save(path)


def stand_in(folder: Path) -> Path:
    """The Python of an environment that has a stand-in for vbench."""
    packages = folder / "packages"
    packages.mkdir()
    (packages / "vbench.py").write_text(STAND_IN)
    (packages / "torch.py").write_text("def device(name):\n    return f'device {name}'\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python
