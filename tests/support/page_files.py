"""What a reader of the pages has: small files by the names that shell lines have for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from pyrf.video import Video
from tests.support import adapters, networks
from tests.support.credentials import write_credentials
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.spoilt import good
from tests.support.vbench import stand_in, write_video
from tests.support.video_files import ramp

ROOT = Path(__file__).parents[2]
TINY = ROOT / "pyrf" / "assets" / "tiny"
MAKE = """
import argparse, shutil
parser = argparse.ArgumentParser()
for name in ("--text", "--seed", "--file"):
    parser.add_argument(name)
shutil.copy("made.mp4", parser.parse_args().file)
"""


def _clip(name: str) -> None:
    Video(ramp(), fps=16).save(name)


def _clips(name: str) -> None:
    Path(name).mkdir()
    Video(good(0)[:33], fps=16).save(Path(name) / "a.mp4")


def _adapter(name: str) -> None:
    save_file(adapters.keys("comfy", adapters.factors()), name)


def _trained_adapter(name: str) -> None:
    Path(name).parent.mkdir(parents=True)
    shutil.copy(ROOT / "tests/data/twin.safetensors", name)


def _student(name: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    weights = networks.dit().state_dict()
    torch.save(weights, name) if name.endswith(".pt") else save_file(weights, name)


def _credentials(name: str) -> None:
    made = write_credentials(Path("authority"))
    shutil.copy(made.certificate, name)
    shutil.copy(made.key, "key.pem")


def _bundle(name: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "pyrf/assets/valley" if "valley" in name else TINY, name)


def _vbench_info(name: str) -> None:
    Path(name).write_text(json.dumps([{"prompt_en": "two dogs", "dimension": ["imaging_quality"]}]))


def _vbench_python(name: str) -> None:
    Path(name).parent.mkdir(parents=True)
    stand_in(Path(name).parent)


def _make(name: str) -> None:
    """A model of somebody else: it makes the same video of every text."""
    Path(name).write_text(MAKE)
    write_video(Path("made.mp4"), 9, HEIGHT, WIDTH, 16)


def _backbone(name: str) -> None:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(name)


def _text(text: str) -> Callable[[str], object]:
    return lambda name: Path(name).write_text(text)


MAKERS: dict[str, Callable[[str], object]] = {
    "clip.mp4": _clip,
    "before/": _clips,
    "after/": _clips,
    "mine/": _clips,
    "ours/": _clips,
    "theirs/": _clips,
    " ink.safetensors": lambda name: _adapter(name.strip()),
    "=ink.safetensors": lambda name: _adapter(name.strip("=")),
    "runs/lora/twin/adapter.safetensors": _trained_adapter,
    "framewise-2step.pt": _student,
    "self_forcing.pt": _student,
    "rewardforcing.pt": _student,
    " student.safetensors": lambda name: _student(name.strip()),
    "runs/wan-redmd/student/student.safetensors": _student,
    "other.safetensors": _adapter,
    "cert.pem": _credentials,
    "runs/tiny/bundle": _bundle,
    "pyrf/assets/valley": _bundle,
    "VBench_full_info.json": _vbench_info,
    "all_dimension_extended.txt": _text("two dogs play in the snow\n"),
    "vbench-env/bin/python": _vbench_python,
    "make.py": _make,
    "dinov2-small": _backbone,
    "prompts.txt": _text("a red circle\na blue square\n"),
    "mine.yaml": _text("window: 9\n"),
    "score.yaml": _text("kind: motion\n"),
}


def make_files(lines: str) -> None:
    """Those that these lines name, in the current folder."""
    for name, make in MAKERS.items():
        if name in lines:
            make(name)
