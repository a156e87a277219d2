"""The files of a TAEHV codec that a stage leaves for those after it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from pyrf.files import whole_file
from pyrf.models.codecs.taehv import TAEHV, TAEHVConfig

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def save_codec(network: TAEHV, folder: Path) -> None:
    """Write a codec, each file whole or not at all."""
    with whole_file(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(network.config.to_dict(), indent=2))
    with whole_file(folder / WEIGHTS) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)


def load_codec(folder: Path) -> TAEHV:
    """The codec that a stage left in its folder.

    Raises:
        FileNotFoundError: when the stage has not been run.
    """
    if not (folder / CONFIG).exists():
        raise FileNotFoundError(f"{folder} holds no codec; run the {folder.name} stage first")
    network = TAEHV(TAEHVConfig.from_dict(json.loads((folder / CONFIG).read_text())))
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network
