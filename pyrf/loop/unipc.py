"""UniPC between the noise levels of a chunk: deterministic, without fresh noise (arXiv:2302.04867).

The predictor-corrector of order two in the form B_2(h) = e^h - 1, on predicted clean latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

HIGHEST_SIGMA = 1 - 1e-6
"""Noise levels stay below 1, where the log of the signal's share is infinite."""


class _Output(NamedTuple):
    """The clean latents that a call predicted, and the half log of signal to noise at its level."""

    half_log_snr: float
    x0: Tensor


class UniPC:
    """The steps between the denoise calls of one chunk.

    Args:
        sigmas: noise levels of the calls, falling, within 0..`HIGHEST_SIGMA`.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._sigmas = sigmas
        self._half_log_snr = [math.log1p(-sigma) - math.log(sigma) for sigma in sigmas]
        # Of the calls before, at most two, and the latents that the last step began with.
        self._past: list[_Output] = []
        self._start: Tensor | None = None

    def step(self, call: int, latents: Tensor, x0: Tensor) -> Tensor:
        """From one call's level to the next one's.

        Args:
            call: number of the call; calls come one after the other.
            latents: that the call took, [B, F, C, H, W].
            x0: that it predicted.

        Returns:
            The latents that the next call takes.
        """
        if self._start is not None:
            latents = self._corrected(call, self._start, x0)
        result = self._predicted(call, latents, x0)
        self._past = [*self._past[-1:], _Output(self._half_log_snr[call], x0)]
        self._start = latents
        return result

    def _predicted(self, call: int, latents: Tensor, x0: Tensor) -> Tensor:
        """UniP of order two, of order one where nothing is known of calls before."""
        sigma, after = self._sigmas[call], self._sigmas[call + 1]
        step = self._half_log_snr[call + 1] - self._half_log_snr[call]
        gain = (after - 1) * math.expm1(-step)
        known = x0
        if self._past:
            before = self._past[-1]
            ratio = (before.half_log_snr - self._half_log_snr[call]) / step
            known = x0 + 0.5 / ratio * (before.x0 - x0)
        return after / sigma * latents + gain * known

    def _corrected(self, call: int, start: Tensor, x0: Tensor) -> Tensor:
        """UniC: the last step again, now that the output at its end is known."""
        sigma, after = self._sigmas[call - 1], self._sigmas[call]
        last = self._past[-1]
        step = self._half_log_snr[call] - last.half_log_snr
        share = math.expm1(-step)
        gain = (after - 1) * share
        if len(self._past) == 1:
            known = last.x0 + 0.5 * (x0 - last.x0)
        else:
            # The two weights that make the step exact for polynomials of degree two.
            before = self._past[0]
            ratio = (before.half_log_snr - last.half_log_snr) / step
            phi_1 = share / -step - 1
            phi_2 = phi_1 / -step - 0.5
            first = (phi_1 - 2 * phi_2) / share / (1 - ratio)
            second = phi_1 / share - first
            known = last.x0 + first / ratio * (before.x0 - last.x0) + second * (x0 - last.x0)
        return after / sigma * start + gain * known
