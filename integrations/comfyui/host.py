"""What the nodes need of ComfyUI itself, and what is done where there is none, as in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyrf.files import expanded

try:
    import folder_paths
    from comfy import model_management
    from comfy.utils import ProgressBar
except ImportError:
    folder_paths = model_management = ProgressBar = None

PREVIEW = 512
"""Pixels of a preview's longer side, at most."""


class Progress:
    """ComfyUI's bar of a node, with a picture; it raises when the user presses Cancel."""

    def __init__(self, num_frames: int) -> None:
        self._bar = None if ProgressBar is None else ProgressBar(num_frames)

    def show(self, count: int, frame: NDArray[np.uint8]) -> None:
        """So many frames are there, the last of which is uint8 [H, W, 3]."""
        if self._bar is not None:
            self._bar.update_absolute(count, preview=("JPEG", Image.fromarray(frame), PREVIEW))


def device_of(choice: str) -> str:
    """The device that a choice means; "auto" is ComfyUI's own."""
    if choice != "auto":
        return choice
    return "cpu" if model_management is None else str(model_management.get_torch_device())


def found(file: str) -> str:
    """A file of ComfyUI's folder models/loras, or a path as it is."""
    listed = None if folder_paths is None else folder_paths.get_full_path("loras", file)
    return listed or expanded(file)


def changed(file: str) -> str:
    """When a file was written; empty where it is none of this machine."""
    path = Path(file)
    return str(path.stat().st_mtime_ns) if path.is_file() else ""


def as_images(frames: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [F, H, W, 3] as ComfyUI's IMAGE, float32 [F, H, W, 3] of 0..1 on the CPU."""
    return torch.from_numpy(frames).to(dtype=torch.float32, device="cpu") / 255


def as_frames(images: Any) -> NDArray[np.uint8]:
    """ComfyUI's IMAGE [F, H, W, 3] or, with alpha, [F, H, W, 4] as uint8 [F, H, W, 3].

    Raises:
        ValueError: when it has another shape.
    """
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or not len(images):
        raise ValueError(f"images must be [F, H, W, 3] with one frame at least, got {list(images.shape)}")
    levels = (images[..., :3].to(torch.float32) * 255).round().clamp(0, 255)
    return np.asarray(levels.to(dtype=torch.uint8, device="cpu"))
