"""The CUDA side of the ops, without a GPU: what is launched, where, and when plain torch runs instead."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from op_arguments import BATCH, DIM, HEADS, OPS, SLOTS, TOKENS, change
from torch._subclasses.fake_tensor import FakeTensorMode

from pyrf.ops import attention_choice, ema_sink_update, native, norm_rope_append, ring_attention

HALF = (torch.bfloat16, torch.float16)
HEAD_DIM = 64
RUNS = {
    name: getattr(__import__(f"pyrf.ops.{name}", fromlist=["_run_cuda"]), "_run_cuda") for name in OPS
}
