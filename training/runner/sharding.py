"""One network over many processes: FSDP2 around the blocks of a DiT, and activation checkpointing in them.

The model files know nothing of this. Weights are kept sharded in their own dtype, gathered a block at a
time in the dtype of computation, and gradients are summed in float32.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from pyrf.bundle.weights import check_names_and_shapes
from pyrf.models.dit.model import WanModel


def checkpoint_blocks(model: WanModel) -> None:
    """Keep only each block's input for the backward, and compute the block again there."""
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def shard(model: WanModel, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Shard a DiT over `mesh`, block by block; it then computes in `dtype`.

    Inputs are not cast: rotations stay in float32, and the network casts latents itself.
    """
    # Outputs of blocks are views, and nothing changes them in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
        register_fsdp_forward_method(block, "encode_prompt")
        register_fsdp_forward_method(block, "append")
    fully_shard(model, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(model, "encode_prompt")
    register_fsdp_forward_method(model, "write_cache")


@torch.no_grad()
def fill(model: WanModel, tensors: dict[str, Tensor], source: str | Path, device: torch.device) -> None:
    """Give a sharded model on the meta device its weights; each process copies its own part of them.

    Args:
        tensors: whole ones under the network's names, mapped from a file rather than read.
        source: of the tensors, for errors.

    Raises:
        CheckpointError: when names or shapes are not the network's.
    """
    check_names_and_shapes({name: p.shape for name, p in model.named_parameters()}, tensors, source)
    model.to_empty(device=device)
    for name, p in model.named_parameters():
        assert isinstance(p, DTensor)
        # No process sends anything: each has the whole tensor in its files.
        whole = tensors[name].to(device=device, dtype=p.dtype)
        p.copy_(distribute_tensor(whole, p.device_mesh, p.placements, src_data_rank=None))
