"""A linear codec, from which the valley's codec starts: PCA of blocks, then twice of pairs in time.

The three bases are written into a TAEHV whose patch is the block. Each coefficient lives in two channels,
one with either sign, so that it passes every ReLU; memory blocks start near the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.loop.noise import gauss
from pyrf.models.codecs.taehv import TAEHV, Grow, MemoryBlock, TemporalPool
from pyrf.training.scratch.clips import edges
from pyrf.training.valley.clips import balloon_mask, clip
from pyrf.worlds.valley.world import Valley

PATCH = 16
KEPT = 48
"""Coefficients of a block, of a pair, and of a pair of pairs."""
FRAMES = 12
DEVIATION = 0.6
"""Of latents at the start; larger ones are cut by the network's soft limit of 3."""


@dataclass(frozen=True)
class LinearCodec:
    """Bases with orthonormal rows.

    Attributes:
        mean: [768] of a block.
        space: [KEPT, 768]; pair: [KEPT, 2 KEPT]; pairs: [KEPT, 2 KEPT].
        mix: [latents, KEPT] from the last coefficients to latents.
        unmix: [KEPT, latents], its inverse on the strongest coefficients.
    """

    mean: Tensor
    space: Tensor
    pair: Tensor
    pairs: Tensor
    mix: Tensor
    unmix: Tensor

    def encode(self, video: Tensor) -> Tensor:
        """[B, 4F, 3, H, W] in 0..1 -> latents [B, F, C, h, w]."""
        x = (_blocks(video) - self.mean) @ self.space.T
        for basis in (self.pair, self.pairs):
            x = _in_pairs(x) @ basis.T
        return (x @ self.mix.T).movedim(-1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, F, C, h, w] -> [B, 4F, 3, H, W]."""
        x = latents.movedim(2, -1) @ self.unmix.T
        for basis in (self.pairs, self.pair):
            x = _apart(x @ basis)
        x = x @ self.space + self.mean
        return F.pixel_shuffle(x.movedim(-1, 2), PATCH)


def _blocks(video: Tensor) -> Tensor:
    """[B, T, 3, H, W] -> [B, T, h, w, 768]."""
    return F.pixel_unshuffle(video, PATCH).movedim(2, -1)


def _in_pairs(x: Tensor) -> Tensor:
    """[B, T, h, w, K] -> [B, T/2, h, w, 2K]."""
    return x.unflatten(1, (-1, 2)).movedim(2, -2).flatten(-2)


def _apart(x: Tensor) -> Tensor:
    """Inverse of `_in_pairs`."""
    return x.unflatten(-1, (2, -1)).movedim(-2, 2).flatten(1, 2)


def _strongest(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The KEPT strongest directions, [KEPT, n], and their variances."""
    variances, directions = torch.linalg.eigh(covariance.double())
    return directions[:, -KEPT:].flip(1).T.float().contiguous(), variances[-KEPT:].flip(0).float()


def fit(world: Valley, clips: int, first_seed: int, latents: int) -> LinearCodec:
    """Bases of `clips` clips of FRAMES frames; blocks with edges and balloons weigh more."""
    videos, weights = [], []
    for seed in range(first_seed, first_seed + clips):
        scene, first, frames = clip(world, seed, FRAMES)
        video = frames.float()[None] / 255
        weight = (
            1 + 3 * edges(video)[0, :, None] + 1.5 * balloon_mask(scene, first, FRAMES, *frames.shape[2:])
        )
        videos.append(frames)
        weights.append(F.avg_pool2d(weight, PATCH)[:, 0])  # [T, h, w]
    weight = torch.stack(weights)[..., None]
    total = torch.zeros(3 * PATCH**2, 3 * PATCH**2, dtype=torch.float32, device="cpu")
    mean = torch.zeros(3 * PATCH**2, dtype=torch.float32, device="cpu")
    for frames, w in zip(videos, weight):
        mean += (_blocks(frames.float()[None] / 255)[0] * w).sum((0, 1, 2))
    mean /= weight.sum()
    for frames, w in zip(videos, weight):
        x = (_blocks(frames.float()[None] / 255)[0] - mean).flatten(0, 2)
        total += (x * w.flatten()[:, None]).T @ x
    space, _ = _strongest(total / weight.sum())
    x = torch.stack([(_blocks(v.float()[None] / 255)[0] - mean) @ space.T for v in videos])
    bases = []
    variances = torch.ones(KEPT, dtype=torch.float32, device="cpu")
    for _ in range(2):
        x, weight = _in_pairs(x), _in_pairs(weight).mean(-1, keepdim=True)
        rows, w = x.flatten(0, 3), weight.flatten()[:, None]
        basis, variances = _strongest((rows * w).T @ rows / w.sum())
        bases.append(basis)
        x = x @ basis.T
    # half whitened, then turned at random, so that no channel is much stronger than another
    deviations = variances[:latents].sqrt()
    scale = deviations.pow(-0.5)
    scale = DEVIATION * scale / (deviations * scale).square().mean().sqrt()
    turn, _ = torch.linalg.qr(gauss((latents, latents), torch.Generator("cpu").manual_seed(0)))
    keep = torch.eye(KEPT, dtype=torch.float32, device="cpu")[:latents]
    mix = turn @ torch.diag(scale) @ keep
    pair, pairs = bases
    return LinearCodec(mean, space, pair, pairs, mix, keep.T @ torch.diag(1 / scale) @ turn.T)


@torch.no_grad()
def write(linear: LinearCodec, network: TAEHV, *, small: float = 0.015) -> None:
    """Make `network` do what `linear` does, but for its soft limit; the rest of its weights are small.

    Raises:
        ValueError: when the network is too narrow, or has another patch.
    """
    config, pairs = network.config, 2 * KEPT
    narrowest = min(config.encoder_width, *config.decoder_widths)
    if config.patch_size != PATCH or any(config.upscale) or narrowest < pairs:
        raise ValueError(
            f"a patch of {PATCH}, no level that upscales and widths of {pairs} or more are needed"
        )
    generator = torch.Generator("cpu").manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            module.weight.mul_(small)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(
            module, MemoryBlock
        ):  # their insides are of ordinary size, only what comes out is small
            for layer in (module.conv[0], module.conv[2]):
                layer.get_parameter("weight").div_(small)
    _write_encoder(linear, network.encoder)
    _write_decoder(linear, network.decoder)


def _both(matrix: Tensor) -> Tensor:
    """From a signed value to its two channels."""
    return torch.cat([matrix, -matrix])


def _from_both(matrix: Tensor) -> Tensor:
    """From two channels to a signed value."""
    return torch.cat([matrix, -matrix], dim=1)


def _centre(conv: nn.Conv2d, rows: int, columns: int, matrix: Tensor) -> None:
    """Set the middle of a kernel; nothing else reaches these rows."""
    conv.weight[:rows] = 0
    middle = conv.kernel_size[0] // 2
    conv.weight[:rows, :columns, middle, middle] = matrix


def _write_encoder(linear: LinearCodec, layers: nn.Sequential) -> None:
    kept, eye = KEPT, torch.eye(KEPT, dtype=torch.float32, device="cpu")
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    pools = [layer for layer in layers if isinstance(layer, TemporalPool)]
    first, after_pair, after_pairs, before_blocks, last = convs
    _centre(first, 2 * kept, first.in_channels, _both(linear.space))
    assert first.bias is not None
    first.bias[: 2 * kept] = _both(-linear.space @ linear.mean)
    for pool, basis in zip(pools, (linear.pair, linear.pairs)):
        width = pool.conv.out_channels
        pool.conv.weight[:kept] = 0
        for time, part in enumerate(basis.split(kept, dim=1)):
            start = time * width
            pool.conv.weight[:kept, start : start + 2 * kept, 0, 0] = _from_both(part)
    nn.init.dirac_(pools[2].conv.weight)
    for conv in (after_pair, after_pairs):
        _centre(conv, 2 * kept, kept, _both(eye))
    _centre(before_blocks, 2 * kept, 2 * kept, _both(_from_both(eye)))
    _centre(last, last.out_channels, 2 * kept, _from_both(linear.mix))


def _write_decoder(linear: LinearCodec, layers: nn.Sequential) -> None:
    kept, eye = KEPT, torch.eye(KEPT, dtype=torch.float32, device="cpu")
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    grows = [layer for layer in layers if isinstance(layer, Grow)]
    first, after_first, after_pairs, after_pair, last = convs
    _centre(first, 2 * kept, first.in_channels, _both(linear.unmix))
    nn.init.dirac_(grows[0].conv.weight)
    _centre(after_first, 2 * kept, 2 * kept, _both(_from_both(eye)))
    for grow, basis in zip(grows[1:], (linear.pairs, linear.pair)):
        width = grow.conv.in_channels
        for time, part in enumerate(basis.split(kept, dim=1)):
            start = time * width
            grow.conv.weight[start : start + kept] = 0
            grow.conv.weight[start : start + kept, : 2 * kept, 0, 0] = _from_both(part.T.contiguous())
    for conv in (after_pairs, after_pair):
        _centre(conv, 2 * kept, kept, _both(eye))
    last.weight[:, : 2 * kept] = 0
    last.weight[:, : 2 * kept, 1, 1] = _from_both(linear.space.T.contiguous())
    assert last.bias is not None
    last.bias[:] = linear.mean
