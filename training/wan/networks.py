"""Wan networks in training: sharded over the processes, and fed by one frozen text encoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from pyrf.bundle.bundle import Bundle
from pyrf.bundle.weights import unfilled
from pyrf.files import whole_file
from pyrf.models.dit.model import PromptCache, WanModel
from pyrf.models.text.encoder import TextEncoder
from pyrf.training.runner import processes, sharding
from pyrf.training.stages.networks import TextToVideo

STUDENT_FILE = "student.safetensors"
"""What a Wan stage leaves: a student file, see `pyrf.bundle.load_bundle`."""


class FrozenText:
    """A text encoder that stays on the CPU, and visits the device to embed prompts it has not seen lately.

    Args:
        negative: the prompt that "" stands for.
        device: where rows are wanted.
        kept: prompts whose rows are kept on the device (4 MB each for Wan).
    """

    def __init__(self, encoder: TextEncoder, negative: str, device: torch.device, kept: int = 64) -> None:
        self.encoder, self.negative, self.device, self.kept = encoder, negative, device, kept
        encoder.network.requires_grad_(False)
        self._rows: OrderedDict[str, Tensor] = OrderedDict()

    def encode(self, captions: list[str]) -> Tensor:
        """Text rows [B, text_len, text_dim] on the device."""
        captions = [caption or self.negative for caption in captions]
        if unseen := [c for c in dict.fromkeys(captions) if c not in self._rows]:
            self.encoder.network.to(self.device)
            self._rows.update(zip(unseen, self.encoder.encode(unseen)))
            self.encoder.network.to("cpu")
        for caption in captions:
            self._rows.move_to_end(caption)
        rows = torch.stack([self._rows[caption] for caption in captions])
        while len(self._rows) > self.kept:
            self._rows.popitem(last=False)
        return rows


class WanTextToVideo(TextToVideo):
    """A Wan DiT and a text encoder that is no part of the module."""

    def __init__(self, dit: WanModel, encode: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.dit, self._encode = dit, encode

    def prompt(self, captions: list[str]) -> PromptCache:
        return self.dit.encode_prompt(self.encode(captions))

    def encode(self, captions: list[str]) -> Tensor:
        return self._encode(captions)

    def save(self, folder: Path) -> None:
        """Write the DiT as a student file."""
        whole = {
            name: (p.full_tensor() if isinstance(p, DTensor) else p).detach().cpu()
            for name, p in self.dit.state_dict().items()
        }
        if processes.rank() == 0:
            with whole_file(folder / STUDENT_FILE) as temporary:
                save_file({name: tensor.contiguous() for name, tensor in whole.items()}, temporary)


def load_wan(
    bundle: Bundle,
    encode: Callable[[list[str]], Tensor],
    mesh: DeviceMesh,
    *,
    dtype: torch.dtype,
    trained: bool,
    checkpointing: bool,
) -> WanTextToVideo:
    """Load a network sharded; no process ever holds it whole.

    Args:
        dtype: of computation. Weights that are trained are kept in float32, others in this one.

    Raises:
        ValueError: when the bundle's weights are missing or damaged.
    """
    with unfilled():
        model = WanModel(bundle.model_config)
    model.to(torch.float32 if trained else dtype).requires_grad_(trained)
    if trained and checkpointing:
        sharding.checkpoint_blocks(model)
    sharding.shard(model, mesh, dtype)
    tensors, source = bundle.transformer_weights()
    sharding.fill(model, tensors, source, processes.device())
    return WanTextToVideo(model, encode)
