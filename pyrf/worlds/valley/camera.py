"""How fast the camera goes, by correlation along x of the nearest ground in frames a little apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FIRST_ROW, LAST_ROW = 130, 192
BANDS = ((9, 16), (13, 20), (17, 24), (21, 28), (24, 31))
"""Rows of two pixels below FIRST_ROW. Higher up, farther layers with a smaller parallax prevail."""
LAG, LONG_LAG = 4, 16
"""Frames between two that are compared; the long one tells a slow camera from a still one."""
REACH = 18
"""Largest shift that is looked for, pixels."""
_PARTS = 8
"""Of a pixel."""


def camera_velocity(frames: Tensor) -> tuple[float, float]:
    """Pixels a frame that the camera goes right, and how sure that is, 0..1.

    frames: uint8 [T, 192, 320, 3], T of 2 or more.
    """
    spectrum = _spectrum(frames)
    lag = min(LAG, len(frames) - 1)
    velocity, sure = _vote(spectrum, lag)
    if abs(velocity) * LONG_LAG < REACH - 2 and len(frames) > LONG_LAG + LAG:
        velocity, sure = _vote(spectrum, LONG_LAG)
    return velocity, sure


def _spectrum(frames: Tensor) -> Tensor:
    """Fourier transform along x of the slopes of brightness: complex [T, rows, 161]."""
    gray = frames[:, FIRST_ROW:LAST_ROW].float().mean(3)
    gray = F.avg_pool2d(gray[:, None], (2, 1))[:, 0]
    gray = F.pad(gray, (1, 1), mode="replicate")
    slope = (gray[..., 2:] - gray[..., :-2]).clamp(-24, 24)
    slope = slope - slope.mean(2, keepdim=True)
    window = torch.hann_window(slope.shape[2], dtype=torch.float32, device=frames.device).sqrt()
    return torch.fft.rfft(slope * window, dim=2)


def _vote(spectrum: Tensor, lag: int) -> tuple[float, float]:
    """The median of the bands' velocities, weighed by how alike and how rich they are."""
    votes = []
    for first, last in BANDS:
        before, after = spectrum[:-lag, first:last], spectrum[lag:, first:last]
        every = max(1, len(before) // 12)
        before, after = before[::every], after[::every]
        power = (before.abs().square().sum((1, 2)) * after.abs().square().sum((1, 2))).sqrt()
        width = 2 * (spectrum.shape[2] - 1)
        shifts = torch.fft.irfft((before * after.conj()).sum(1), width * _PARTS, dim=1) * (_PARTS * width / 2)
        near = torch.cat([shifts[:, -REACH * _PARTS :], shifts[:, : REACH * _PARTS + 1]], dim=1)
        alike = (near / (power + 100)[:, None]).mean(0)
        best = int(alike.argmax())
        energy = float(power.mean().sqrt()) / 50
        score = max(0.0, float(alike[best]))
        votes.append(((best / _PARTS - REACH) / lag, score, score * score * energy / (energy + 15)))
    votes.sort()
    half = sum(weight for _, _, weight in votes) / 2
    passed = 0.0
    for velocity, score, weight in votes:
        passed += weight
        if passed >= half:
            return velocity, min(1.0, score)
    return 0.0, 0.0
