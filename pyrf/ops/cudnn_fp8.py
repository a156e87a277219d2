"""Attention in e4m3 by cuDNN, through its Python front end (`nvidia-cudnn-frontend`): Hopper and Blackwell.

Written for its documented interface: `pygraph.sdpa_fp8` of the front end 1.13, cuDNN 9.14, and newer. It has
never run on a GPU; the tests check what it asks of the front end.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from pyrf.ops.attention_choice import AttentionRefusedError
from pyrf.ops.e4m3 import E4M3, WEIGHT_SCALE, to_e4m3

CAPABILITY = (9, 0)
CUDNN = 91400
"""The oldest cuDNN whose products in e4m3 the front end's own tests run."""
PLANS = 64
"""Kept in a process: one a workload."""
_SCALES = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")

Layout = tuple[torch.Size, tuple[int, ...]]
"""Shape and strides."""


def attend(q: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
    """`pyrf.ops.e4m3.attend` on a CUDA device.

    Raises:
        AttentionRefusedError: when the front end is not installed, or cuDNN has no kernel for this.
    """
    cudnn = _front_end(q.device)
    batch, heads, queries, head_dim = q.shape
    out = q.new_empty(batch, queries, heads, head_dim).transpose(1, 2)
    given = {"q": to_e4m3(q), "k": keys.narrow(2, 0, length), "v": values.narrow(2, 0, length)}
    layouts = tuple((x.shape, x.stride()) for x in (*given.values(), out))
    with torch.cuda.device(q.device):
        handle = _handle(q.device)
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
        graph, names, room = _plan(q.device, q.dtype, *layouts)
        largest = torch.empty(2, dtype=torch.float32, device=q.device)
        tensors = {**given, **_scales(q.device), "out": out, "amax_s": largest[:1], "amax_o": largest[1:]}
        workspace = torch.empty(room, dtype=torch.uint8, device=q.device)
        graph.execute({names[name]: x for name, x in tensors.items()}, workspace, handle=handle)
    return out


def _front_end(device: torch.device) -> Any:
    """The module `cudnn`, where it serves a device."""
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        raise AttentionRefusedError("cuDNN multiplies e4m3 on Hopper (9.0) and newer alone")
    try:
        import cudnn
    except ImportError:
        raise AttentionRefusedError(
            "cuDNN's front end is missing; run pip install '.[cudnn]' in a clone of pyrf"
        ) from None
    if cudnn.backend_version() < CUDNN:
        raise AttentionRefusedError(f"cuDNN must be {CUDNN} or newer, got {cudnn.backend_version()}")
    return cudnn


@cache
def _handle(device: torch.device) -> Any:
    return _front_end(device).create_handle()


@cache
def _scales(device: torch.device) -> dict[str, Tensor]:
    """Factors of q, k, v and the softmax's weights, float32 [1]: all but the weights' are 1."""
    factors = {"descale_s": 1 / WEIGHT_SCALE, "scale_s": WEIGHT_SCALE}
    return {
        name: torch.full((1,), factors.get(name, 1.0), dtype=torch.float32, device=device) for name in _SCALES
    }


@lru_cache(PLANS)
def _plan(
    device: torch.device, dtype: torch.dtype, q: Layout, k: Layout, v: Layout, out: Layout
) -> tuple[Any, dict[str, Any], int]:
    """A built graph, its tensors by name, and the bytes of its workspace."""
    cudnn = _front_end(device)
    kinds = {
        torch.bfloat16: cudnn.data_type.BFLOAT16,
        torch.float16: cudnn.data_type.HALF,
        E4M3: cudnn.data_type.FP8_E4M3,
    }
    if dtype not in kinds:
        raise AttentionRefusedError(f"cuDNN's result must be bfloat16 or float16, got {dtype}")
    graph = cudnn.pygraph(
        handle=_handle(device),
        io_data_type=kinds[E4M3],
        intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT,
    )
    names = {
        name: graph.tensor(name=name, dim=list(shape), stride=list(strides), data_type=kinds[E4M3])
        for name, (shape, strides) in (("q", q), ("k", k), ("v", v))
    }
    one = {"dim": [1, 1, 1, 1], "stride": [1, 1, 1, 1]}
    scales = {name: graph.tensor(name=name, data_type=cudnn.data_type.FLOAT, **one) for name in _SCALES}
    result, _, amax_s, amax_o = graph.sdpa_fp8(
        **names, **scales, generate_stats=False, attn_scale=q[0][3] ** -0.5, use_causal_mask=False
    )
    shape, strides = out
    result.set_output(True).set_dim(list(shape)).set_stride(list(strides)).set_data_type(kinds[dtype])
    for amax in (amax_s, amax_o):
        amax.set_output(True).set_dim(one["dim"]).set_stride(one["stride"]).set_data_type(
            cudnn.data_type.FLOAT
        )
    try:
        graph.build([cudnn.heur_mode.A])
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
        raise AttentionRefusedError(f"cuDNN has no kernel for it ({error})") from error
    return (
        graph,
        {**names, **scales, "out": result, "amax_s": amax_s, "amax_o": amax_o},
        graph.get_workspace_size(),
    )
