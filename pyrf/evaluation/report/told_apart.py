"""Part "told-apart": whether a small network can tell streamed clips from true ones."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pyrf.evaluation.held_out import JUDGED_SECONDS, TitledVideo
from pyrf.evaluation.report.examined import Examined, Part, kept_frames
from pyrf.evaluation.report.measures import share
from pyrf.loop.inference import inference
from pyrf.loop.noise import below
from pyrf.worlds.world import Frames

PAIRS = 3
"""Of consecutive frames, that are kept of a clip."""
STEPS = 300
"""Of the training."""
BATCH = 16
"""Pairs in a step."""
SUREST = 24
"""Clips of the sheet."""


class Told(NamedTuple):
    """What the network says of clips that it was not trained on: the higher, the more it takes them for
    streamed ones; [N] each."""

    streamed: NDArray[np.float64]
    true: NDArray[np.float64]


def told_apart(examined: Examined, count: int) -> Part:
    """Accuracy of a network that was trained on one half of the clips, on the other half; 50 % at best."""
    world = examined.world
    streamed, true, shown = [], [], []
    for number, prompt, clip in examined.clips(world.held_out(count), JUDGED_SECONDS):
        real = examined.true_clip(number, prompt, len(clip))
        rng = random.Random(f"pairs {number}")
        times = rng.sample(range(len(clip) - 1), PAIRS)
        streamed.append(frame_pairs(clip, times))
        true.append(frame_pairs(real, times))
        if number % 2:
            shown.append((prompt.text, kept_frames(clip, 4)))
    told = tell_apart(np.stack(streamed), np.stack(true), STEPS)
    right = [*(told.streamed > 0).tolist(), *(told.true <= 0).tolist()]
    surest = np.argsort(-told.streamed, kind="stable")[:SUREST]
    rows: list[TitledVideo] = [(f"{told.streamed[i]:+.1f} {shown[i][0]}", shown[i][1]) for i in surest]
    return Part([share("accuracy", right)], rows)


def frame_pairs(clip: Frames, times: list[int]) -> Frames:
    """The frames at some times with those that follow, uint8 [pairs, H, W, 6]."""
    return np.stack([np.concatenate([clip[t], clip[t + 1]], axis=-1) for t in times])


def tell_apart(streamed: Frames, true: Frames, steps: int) -> Told:
    """Train on the clips of even numbers, and tell of the others.

    Args:
        streamed, true: uint8 [N, pairs, H, W, 6], N of 2 or more; clips n of both are of one prompt.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    network = PairReader(generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    sources = [torch.from_numpy(np.concatenate(clips[::2])) for clips in (streamed, true)]
    targets = torch.tensor([1.0, 0.0], dtype=torch.float32, device="cpu").repeat_interleave(BATCH // 2)
    for _ in range(steps):
        drawn = [source[below(len(source), (BATCH // 2,), generator)] for source in sources]
        loss = F.binary_cross_entropy_with_logits(network(_cut(torch.cat(drawn), generator)), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    network.eval()
    return Told(_logits(network, streamed[1::2]), _logits(network, true[1::2]))


def _cut(pairs: Tensor, generator: torch.Generator) -> Tensor:
    """A random half of the height and width, perhaps mirrored, so that no scene is learned by heart."""
    height, width = pairs.shape[1] // 2, pairs.shape[2] // 2
    top, left, mirrored = (int(below(n, (1,), generator)) for n in (height + 1, width + 1, 2))
    cut = pairs[:, top : top + height, left : left + width]
    return cut.flip(2) if mirrored else cut


@inference()
def _logits(network: PairReader, clips: Frames) -> NDArray[np.float64]:
    """The mean over the pairs of each clip, [N]."""
    return np.array([network(torch.from_numpy(clip)).mean().item() for clip in clips])


class PairReader(nn.Module):
    """Two frames -> a logit. 26,000 parameters.

    Args:
        generator: of the weights that it starts with.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        widths = (12, 16, 24, 32, 48)
        self.layers = nn.ModuleList(nn.Conv2d(n_in, n_out, 3, 2, 1) for n_in, n_out in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = nn.Linear(2 * widths[-1], 1)
        for layer in (*self.layers, self.head):
            nn.init.kaiming_uniform_(layer.get_parameter("weight"), a=5**0.5, generator=generator)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, pairs: Tensor) -> Tensor:
        """uint8 [B, H, W, 6] -> [B]. It sees both frames, how they differ, and the first one's detail.

        Colours alone are learned by heart from few clips; detail and motion are not.
        """
        x = pairs.permute(0, 3, 1, 2).float() / 127.5 - 1
        first, second = x[:, :3], x[:, 3:]
        detail = first - F.avg_pool2d(first, 3, stride=1, padding=1, count_include_pad=False)
        x = torch.cat([x, 8 * (second - first), 8 * detail], dim=1)
        for layer, norm in zip(self.layers, self.norms):
            x = F.silu(norm(layer(x)))
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)).squeeze(1)
