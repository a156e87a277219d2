"""A video that is hard to encode: a texture of several scales that moves behind another one."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyrf.video.writer import Frames


def moving_texture(num_frames: int, height: int = 480, width: int = 832) -> Frames:
    """Frames [T, H, W, 3]."""
    back = _texture(height + 2 * num_frames, width + 4 * num_frames, seed=0)
    front = _texture(height // 3, width // 4, seed=1) // 2 + 60
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for t in range(num_frames):
        frames[t] = back[2 * t : 2 * t + height, 4 * t : 4 * t + width]
        top, left = height // 4 + 3 * t % (height // 3), 6 * t % (width // 2)
        frames[t, top : top + front.shape[0], left : left + front.shape[1]] = front
    return frames


def _texture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128.0)
    for cell, strength in ((64, 45.0), (16, 30.0), (6, 14.0), (3, 6.0)):
        cells = rng.standard_normal((height // cell + 2, width // cell + 2, 3))
        for c in range(3):
            plane = Image.fromarray(cells[..., c].astype(np.float32))
            total[..., c] += strength * np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
    return total.clip(0, 255).astype(np.uint8)


def psnr(expected: NDArray[np.uint8], got: NDArray[np.uint8]) -> float:
    """In dB."""
    return float(10 * np.log10(255**2 / np.mean((expected.astype(np.float32) - got) ** 2)))


def jpeg_psnr(frame: NDArray[np.uint8], quality: int) -> float:
    """In dB, of what a WebSocket would carry."""
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=quality)
    return psnr(frame, np.asarray(Image.open(data)))
