"""The valley's text-to-video network: sizes, and what it starts from."""

from __future__ import annotations

from pathlib import Path

from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo, load_network
from pyrf.worlds.valley.captions import vocabulary


class ValleyNetworkSettings(NetworkSettings):
    """Sizes of the network. 4 * in_channels numbers of noise in a token need twice as much width."""

    in_channels: int = 24
    out_channels: int = 24
    text_len: int = 48


SMALL = {"dim": 192, "ffn_dim": 768, "num_heads": 6, "num_layers": 6}


def new_network() -> ScratchTextToVideo:
    """A network with random weights, of the size that two cores can train and stream."""
    return ScratchTextToVideo(ValleyNetworkSettings(**SMALL), vocabulary())


def load(folder: Path) -> ScratchTextToVideo:
    """The network that a stage saved to `folder`."""
    return load_network(folder, vocabulary(), ValleyNetworkSettings)
