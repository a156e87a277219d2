"""FSDP2 over two processes trains as one process does, with and without activation checkpointing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from pyrf.config import LatentSize
from pyrf.models.dit.model import WanModel
from pyrf.models.dit.rollout import ModelRollout
from pyrf.training.runner import processes, sharding
from tests.support import networks

pytestmark = pytest.mark.usefixtures("quick_processes")
BATCH = 2


def gradients(model: WanModel, samples: range) -> dict[str, Tensor]:
    """Gradients of a rollout past an eviction plus a bidirectional call; batch elements by number."""

    def draw(*shape: int) -> Tensor:
        rows = [torch.randn(shape, generator=generators[n]) for n in samples]
        return torch.stack(rows)

    generators = {n: torch.Generator().manual_seed(n) for n in samples}
    prompt = model.encode_prompt(draw(networks.MODEL.text_len, networks.MODEL.text_dim))
    rollout = ModelRollout(model, networks.STREAM, prompt, LatentSize(4, 6))
    size = (networks.STREAM.chunk_frames, networks.MODEL.in_channels, 4, 6)
    chunks = [rollout.next_chunk(lambda: draw(*size), exit_step=1) for _ in range(4)]
    latents = torch.cat(chunks, 1)
    flow = model(latents.detach(), torch.full((len(samples),), 500.0), prompt)
    (latents.square().mean() + flow.float().square().mean()).backward()
    gathered = {}
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        gathered[name] = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
    return gathered


def sharded_gradients(folder: Path, dtype: torch.dtype, recompute: bool) -> None:
    torch.set_num_threads(1)
    with torch.device("meta"):
        model = WanModel(networks.MODEL)
    if recompute:
        sharding.checkpoint_blocks(model)
    sharding.shard(model, init_device_mesh("cpu", (processes.world_size(),)), dtype)
    sharding.fill(model, dict(networks.dit().state_dict()), "small", torch.device("cpu"))
    local = sum(p.to_local().numel() for p in model.parameters())  # type: ignore[attr-defined]
    assert local < 0.7 * sum(p.numel() for p in model.parameters())
    rank = processes.rank()
    found = gradients(model, range(rank * BATCH, (rank + 1) * BATCH))
    if rank == 0:
        torch.save(found, folder / "gradients.pt")


@pytest.mark.parametrize(
    ("dtype", "recompute", "tolerance"),
    [(torch.float32, False, 1e-4), (torch.float32, True, 1e-4), (torch.bfloat16, True, 0.1)],
    ids=["float32", "checkpointed", "bfloat16"],
)
def test_two_processes_equal_one(
    tmp_path: Path, dtype: torch.dtype, recompute: bool, tolerance: float
) -> None:
    """Gradients, which are averaged over the processes, equal those of the whole batch in one."""
    processes.launch(2, sharded_gradients, tmp_path, dtype, recompute)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    expected = gradients(networks.dit(), range(2 * BATCH))
    for name, gradient in expected.items():
        error = float((found[name] - gradient).norm() / gradient.norm().clamp(min=1e-3))
        assert error < tolerance, name
        assert found[name].dtype == torch.float32


def test_wrong_weights_are_refused() -> None:
    with torch.device("meta"):
        model = WanModel(networks.MODEL)
    tensors = dict(networks.dit().state_dict())
    del tensors["head.head.bias"]
    with pytest.raises(ValueError, match=r"weights\.pt: head\.head\.bias \[64\] is missing"):
        sharding.fill(model, tensors, "weights.pt", torch.device("cpu"))
