"""Constancy of what is shown, by a small image network of transformers that lies on disk.

As VBench's consistency: the mean over frames of the cosines with the first frame and with the one before.
With a DINO it is that of the subject, with a CLIP that of the background.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyrf.evaluation.videos.clip import Clip
from pyrf.evaluation.videos.measures import Measured
from pyrf.export.manifest import file_entry
from pyrf.extras import needs

FPS = 2
"""Frames per second that are looked at."""
BATCH = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, where the folder does not say its own."""


class Backbone:
    """An image network.

    Args:
        folder: in the layout of transformers, such as dinov2-small; nothing is downloaded.

    Attributes:
        files: SHA-256 of the folder's files by name.

    Raises:
        ValueError: when transformers is missing, or the folder holds no image network.
    """

    def __init__(self, folder: Path) -> None:
        with needs("videoalign", "a backbone"):
            from transformers import AutoModel
        try:
            model: Any = AutoModel.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"--backbone {folder}: {error}") from error
        self.files = {path.name: file_entry(path)[1] for path in sorted(folder.iterdir()) if path.is_file()}
        self._model = getattr(model, "vision_model", model).eval().requires_grad_(False)
        size = getattr(self._model.config, "image_size", None)
        if not isinstance(size, int):
            raise ValueError(f"--backbone {folder}: no network of images: its config has no image_size")
        self._size = size
        told = folder / "preprocessor_config.json"
        values = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
        self._mean, self._std = (
            torch.tensor(values.get(name, default), dtype=torch.float32, device="cpu").view(3, 1, 1)
            for name, default in (("image_mean", MEAN), ("image_std", STD))
        )

    def measure(self, clip: Clip) -> Measured:
        """Constancy of a video."""
        step = max(1, round(clip.fps / FPS))
        features = torch.cat([self._features(batch) for batch in _batches(clip.frames[::step])])
        features = torch.nn.functional.normalize(features.float(), dim=-1)
        with_first = features[1:] @ features[0]
        with_last = (features[1:] * features[:-1]).sum(-1)
        curve = ((with_first + with_last) / 2).double().numpy()
        return Measured(float(curve.mean()), curve, step / clip.fps)

    def _features(self, frames: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
        size = (self._size, self._size)
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self._model(pixel_values=(pixels - self._mean) / self._std).last_hidden_state[:, 0]


def _batches(frames: np.ndarray) -> list[np.ndarray]:
    return [frames[i : i + BATCH] for i in range(0, len(frames), BATCH)]
