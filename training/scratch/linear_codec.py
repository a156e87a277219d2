"""A linear codec, from which a world's block codec starts.

Latents are a PCA of blocks of 16 x 16 pixels and 4 frames. The decoder sees a cell's neighbours too: it is
the ridge regression of pixels on latents of 3 x 3 cells, so that neighbouring blocks meet.

Both are written into a TAEHV whose patch is the block. A value lives in two channels, one with either sign,
so that it passes every ReLU. The encoder stays so; in the decoder memory blocks start near the identity.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pyrf.files import whole_file
from pyrf.loop.noise import gauss
from pyrf.models.codecs.taehv import FRAMES_PER_LATENT, TAEHV, Clamp, Grow, MemoryBlock, TemporalPool
from pyrf.training.scratch.clips import edges, random_clip, subject_mask
from pyrf.worlds.world import World

PATCH = 16
KEPT = 64
"""Coefficients of a block of one frame, and features of every stage."""
FRAMES = 12
DEVIATION = 0.6
"""Of latents; larger ones are cut by the network's soft limit of 3."""


class LinearCodec(nn.Module):
    """C latents a cell.

    Attributes:
        mean: [768] of a block.
        space: [KEPT, 768], orthonormal rows: from a block to its coefficients.
        code: [C, 4 KEPT] from the coefficients of four frames to latents.
        paint: [4 KEPT, 9 C] from the latents of 3 x 3 cells, as `unfold` orders them, to coefficients.
    """

    mean: Tensor
    space: Tensor
    code: Tensor
    paint: Tensor

    def __init__(self, mean: Tensor, space: Tensor, code: Tensor, paint: Tensor) -> None:
        super().__init__()
        for name, tensor in {"mean": mean, "space": space, "code": code, "paint": paint}.items():
            self.register_buffer(name, tensor.contiguous())

    def encode(self, video: Tensor) -> Tensor:
        """[B, 4F, 3, H, W] in 0..1 -> latents [B, F, C, h, w]."""
        return torch.einsum("lk,bfkhw->bflhw", self.code, self.coefficients(video))

    def coefficients(self, video: Tensor) -> Tensor:
        """[B, 4F, 3, H, W] in 0..1 -> [B, F, 4 KEPT, h, w]."""
        kernel = self.space.unflatten(1, (3, PATCH, PATCH))
        x = F.conv2d(video.flatten(0, 1), kernel, -self.space @ self.mean, stride=PATCH)
        return x.unflatten(0, (len(video), -1, FRAMES_PER_LATENT)).flatten(2, 3)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, F, C, h, w] -> [B, 4F, 3, H, W]."""
        kernel = self.paint.unflatten(1, (-1, 3, 3))
        x = F.conv2d(Clamp()(latents.flatten(0, 1)), kernel, padding=1).unflatten(
            1, (FRAMES_PER_LATENT, KEPT)
        )
        blocks = x.movedim(2, -1) @ self.space + self.mean
        return F.pixel_shuffle(blocks.movedim(-1, 2), PATCH).flatten(0, 1).unflatten(0, (len(latents), -1))


@torch.no_grad()
def encoder_of(network: TAEHV) -> LinearCodec | None:
    """What `write` wrote into the encoder of a network, which does the same in a tenth of the time.

    It has no `paint`. Returns None for an encoder that is not linear.
    """
    config, layers = network.config, network.encoder
    blocks = [layer for layer in layers if isinstance(layer, MemoryBlock)]
    if (
        config.patch_size != PATCH
        or any(config.upscale)
        or any(p.any() for b in blocks for p in b.parameters())
    ):
        return None
    first, pools = layers[0], [layer.conv for layer in layers if isinstance(layer, TemporalPool)]
    space = first.get_parameter("weight")[:KEPT, :, 1, 1].contiguous()
    mean = -space.T @ first.get_parameter("bias")[:KEPT]  # all of it that `space` sees
    latents = config.latent_channels
    pair = torch.cat([part[: 2 * latents, :KEPT, 0, 0] for part in pools[0].weight.chunk(2, dim=1)], dim=1)
    halves = [part[:latents, : 2 * latents, 0, 0] for part in pools[1].weight.chunk(2, dim=1)]
    code = torch.cat([half @ pair for half in halves], dim=1)
    return LinearCodec(mean, space, code, code.new_zeros(0, 0))


def load_or_fit(world: World, clips: int, first_seed: int, latents: int, file: Path) -> LinearCodec:
    """The codec that `file` holds; it is fitted and written first where there is none."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as temporary:
            save_file(fit(world, clips, first_seed, latents).state_dict(), temporary)
    return load_linear(file)


def load_linear(file: Path) -> LinearCodec:
    """The codec that `load_or_fit` left."""
    return LinearCodec(**load_file(file))


@torch.no_grad()
def fit(world: World, clips: int, first_seed: int, latents: int) -> LinearCodec:
    """A codec of `clips` clips of FRAMES frames; blocks with edges and subjects weigh more."""
    videos, weights = [], []
    for seed in range(first_seed, first_seed + clips):
        scene, first, frames = random_clip(world, seed, FRAMES)
        weight = 1 + 3 * edges(frames.float() / 255).clamp(max=0.7)[:, None]
        weight = weight + 1.5 * subject_mask(scene, first, FRAMES, *frames.shape[2:])
        videos.append(frames[None])
        weights.append(F.avg_pool2d(weight, PATCH)[:, 0])  # [T, h, w]
    weight = torch.stack(weights)

    mean = torch.zeros(3 * PATCH**2, dtype=torch.float32, device="cpu")
    for frames in videos:
        mean += F.pixel_unshuffle(frames.float() / 255, PATCH).mean((0, 1, 3, 4)) / clips
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float32, device="cpu")
    for frames, w in zip(videos, weight):
        blocks = (F.pixel_unshuffle(frames.float() / 255, PATCH).movedim(2, -1) - mean).flatten(0, 3)
        covariance += (blocks * w.flatten()[:, None]).T @ blocks
    space, _ = _strongest(covariance, KEPT)

    nothing = mean.new_zeros(0, 0)
    blank = LinearCodec(mean, space, nothing, nothing)
    x = torch.cat([blank.coefficients(frames.float() / 255) for frames in videos]).flatten(0, 1)
    w = weight.unflatten(1, (-1, FRAMES_PER_LATENT)).mean(2).flatten()[:, None]  # of cells of latents
    targets = x.movedim(1, -1).flatten(0, 2)
    directions, deviations = _strongest((targets * w).T @ targets / w.sum(), latents)
    # half whitened, then turned at random, so that no channel is much stronger than another
    scale = deviations.pow(-0.5)
    scale = DEVIATION * scale / (deviations * scale).square().mean().sqrt()
    turn, _ = torch.linalg.qr(gauss((latents, latents), torch.Generator("cpu").manual_seed(0)))
    code = turn @ (scale[:, None] * directions)

    z = Clamp()(torch.einsum("lk,nkhw->nlhw", code, x))
    gram = torch.zeros(9 * latents, 9 * latents, dtype=torch.float64, device="cpu")
    moment = torch.zeros(9 * latents, 4 * KEPT, dtype=torch.float64, device="cpu")
    for at in range(0, len(z), 30):
        seen = _neighbours(z[at : at + 30])
        rows = slice(at * z[0, 0].numel(), at * z[0, 0].numel() + len(seen))
        gram += ((seen * w[rows]).T @ seen).double()
        moment += ((seen * w[rows]).T @ targets[rows]).double()
    gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64, device="cpu")
    paint = torch.linalg.solve(gram, moment).T
    # no more is kept than a network's features can carry, strongest first in the picture
    spread = torch.linalg.cholesky(gram)
    left = torch.linalg.svd(paint @ spread, full_matrices=False)[0][:, :KEPT]
    return LinearCodec(mean, space, code, (left @ (left.T @ paint)).float())


def _strongest(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` strongest directions, [count, n], and their deviations."""
    variances, directions = torch.linalg.eigh(covariance.double())
    directions, variances = directions[:, -count:].flip(1), variances[-count:].flip(0)
    return directions.T.float().contiguous(), variances.clamp(min=1e-12).sqrt().float()


def _neighbours(latents: Tensor) -> Tensor:
    """[N, C, h, w] -> the latents of 3 x 3 cells about each, [N * h * w, 9 C]; zeros beyond the rim."""
    return F.unfold(latents, 3, padding=1).movedim(1, -1).flatten(0, 1)


@torch.no_grad()
def write(linear: LinearCodec, network: TAEHV, *, small: float = 0.01) -> None:
    """Make `network` do what `linear` does.

    Args:
        small: size of the decoder's other weights, so that it can learn more; the encoder's are 0.

    Raises:
        ValueError: when the network is too narrow, or has another patch.
    """
    config = network.config
    narrowest = min(config.encoder_width, *config.decoder_widths)
    if config.patch_size != PATCH or any(config.upscale) or narrowest < 2 * KEPT:
        raise ValueError(
            f"a patch of {PATCH}, no level that upscales and widths of {2 * KEPT} or more are needed"
        )
    if 2 * config.latent_channels > KEPT:
        raise ValueError(f"latent_channels may be up to {KEPT // 2}, got {config.latent_channels}")
    for parameter in network.encoder.parameters():
        parameter.zero_()
    generator = torch.Generator("cpu").manual_seed(0)
    for module in network.decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            module.weight.mul_(small)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.decoder.modules():
        if isinstance(module, MemoryBlock):  # ordinary inside, small only in what comes out
            for layer in (module.conv[0], module.conv[2]):
                layer.get_parameter("weight").div_(small)
    _write_encoder(linear, network.encoder)
    _write_decoder(linear, network.decoder)


def _eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float32, device="cpu")


def _both(matrix: Tensor) -> Tensor:
    """From a signed value to its two channels."""
    return torch.cat([matrix, -matrix])


def _from_both(matrix: Tensor) -> Tensor:
    """From two channels to a signed value."""
    return torch.cat([matrix, -matrix], dim=1)


def _set(conv: nn.Conv2d, matrix: Tensor) -> None:
    """Let the first rows do what `matrix` does to the first columns, and nothing else.

    A matrix [rows, columns] sits in the middle of the kernel; [rows, columns, 3, 3] is all of it.
    """
    rows, columns, middle = *matrix.shape[:2], conv.kernel_size[0] // 2
    conv.weight[:rows] = 0
    if matrix.dim() == 4:
        conv.weight[:rows, :columns] = matrix
    else:
        conv.weight[:rows, :columns, middle, middle] = matrix


def _side_by_side(width: int, parts: list[Tensor]) -> Tensor:
    """A matrix of several inputs of `width` channels each, of which every part reads the first."""
    return torch.cat([F.pad(part, (0, width - part.shape[1])) for part in parts], dim=1)


def _write_encoder(linear: LinearCodec, layers: nn.Sequential) -> None:
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    pools = [layer for layer in layers if isinstance(layer, TemporalPool)]
    first, after_pair, after_pairs, before_blocks, last = convs
    # what both pairs of frames must tell of themselves: the rows of either half of the code
    halves = linear.code.split(2 * KEPT, dim=1)
    pair = torch.linalg.qr(torch.cat(halves).T)[0].T
    width, latents = first.out_channels, len(linear.code)
    _set(first, _both(linear.space))
    assert first.bias is not None
    first.bias[: 2 * KEPT] = _both(-linear.space @ linear.mean)
    _set(pools[0].conv, _side_by_side(width, [_from_both(part) for part in pair.split(KEPT, dim=1)]))
    _set(after_pair, _both(_eye(len(pair))))
    _set(pools[1].conv, _side_by_side(width, [_from_both(half @ pair.T) for half in halves]))
    signs = _both(_eye(latents))
    _set(after_pairs, signs)
    nn.init.dirac_(pools[2].conv.weight)
    _set(before_blocks, _both(_from_both(_eye(latents))))
    _set(last, _from_both(_eye(latents)))


def _write_decoder(linear: LinearCodec, layers: nn.Sequential) -> None:
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    grows = [layer for layer in layers if isinstance(layer, Grow)]
    first, after_first, after_pairs, after_pair, last = convs
    features, loads, _ = torch.linalg.svd(linear.paint, full_matrices=False)
    features, loads = features[:, :KEPT], loads[:KEPT]
    halves = features.split(2 * KEPT)
    # one map from features to a pair of frames, as good as can be for both halves
    joint = torch.cat(halves, dim=1) * torch.cat([loads, loads])
    frames = torch.linalg.svd(joint, full_matrices=False)[0][:, :KEPT]
    signed = _both(_from_both(_eye(KEPT)))
    _set(first, _both((features.T @ linear.paint).unflatten(1, (-1, 3, 3))))
    nn.init.dirac_(grows[0].conv.weight)
    _set(after_first, signed)
    for grow, parts in ((grows[1], [frames.T @ half for half in halves]), (grows[2], frames.split(KEPT))):
        width = grow.conv.in_channels
        for time, part in enumerate(parts):
            start = time * width
            grow.conv.weight[start : start + KEPT] = 0
            grow.conv.weight[start : start + KEPT, : 2 * KEPT, 0, 0] = _from_both(part)
    for conv in (after_pairs, after_pair):
        _set(conv, _both(_eye(KEPT)))
    last.weight[:, : 2 * KEPT] = 0
    last.weight[:, : 2 * KEPT, 1, 1] = _from_both(linear.space.T.contiguous())
    assert last.bias is not None
    last.bias[:] = linear.mean
