"""Launches: blocks in batches, and which threads of a batch run next."""

from __future__ import annotations

from typing import Any

import numpy as np

import tests.kernels.ptx.scalar
import tests.kernels.ptx.warp  # noqa: F401  fills the table of instructions
from tests.kernels.ptx.memory import Array, GlobalMemory, SharedMemory
from tests.kernels.ptx.state import HANDLERS, Batch, Lanes
from tests.kernels.ptx.syntax import Instruction, Kernel, PtxError

CONTROL = {
    "bra": {"uni"},
    "ret": {"uni"},
    "exit": set(),
    "bar": {"sync", "warp"},
    "barrier": {"sync", "aligned", "cta"},
}
BATCH_LANES = 2048
"""Threads that run together: enough to hide Python's cost of an instruction, few enough for the cache."""


def launch(
    kernel: Kernel,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    parameters: bytes,
    memory: GlobalMemory,
    dynamic_shared: int = 0,
) -> None:
    """Run a kernel to its end.

    Args:
        grid, block: sizes, x first.
        parameters: all of them as one struct in C's layout; pointers are addresses in ``memory``.
        dynamic_shared: bytes of dynamic shared memory.

    Raises:
        PtxError: an instruction that is not known, an access out of bounds or misaligned, a barrier or
            a warp instruction that only some threads reach.
    """
    check_known(kernel)
    threads = int(np.prod(block))
    if kernel.max_threads is not None and threads > kernel.max_threads:
        raise PtxError(f"{kernel.name} takes blocks of at most {kernel.max_threads} threads, got {threads}")
    if len(parameters) != kernel.parameter_bytes:
        raise PtxError(
            f"{kernel.name} takes {kernel.parameter_bytes} bytes of parameters, got {len(parameters)}"
        )
    symbols, shared_size = _layout(kernel, dynamic_shared)
    base = memory.place(np.frombuffer(parameters, np.uint8))
    symbols |= {name: base + offset for name, offset in kernel.parameters.items()}
    z, y, x = np.meshgrid(*(np.arange(size) for size in grid[::-1]), indexing="ij")
    indices = np.stack((x.ravel(), y.ravel(), z.ravel()), 1)
    step = max(1, BATCH_LANES // threads)
    with np.errstate(all="ignore"):
        for first in range(0, len(indices), step):
            blocks = indices[first : first + step]
            shared = SharedMemory(len(blocks), shared_size)
            _run(Batch(kernel, memory, shared, blocks, grid, block, symbols))


def check_known(kernel: Kernel) -> None:
    """Refuse a kernel with an instruction, or a modifier of one, that has no meaning here."""
    for instruction in kernel.code:
        known = CONTROL.get(instruction.op)
        if known is None and instruction.op in HANDLERS:
            known = set(HANDLERS[instruction.op][1])
        if known is None or not set(instruction.modifiers) <= known:
            raise PtxError(f"unknown instruction: {instruction.text}")


def _layout(kernel: Kernel, dynamic_shared: int) -> tuple[dict[str, int], int]:
    """Addresses of the shared variables, the dynamic one last, and the size of them all."""
    addresses, end = {}, 0
    for name, align, size in sorted(kernel.shared, key=lambda variable: variable[2] == 0):
        addresses[name] = start = -(-end // align) * align
        end = start + size
    return addresses, end + dynamic_shared


def _run(batch: Batch) -> None:
    """Run a batch; at any time its threads are in fragments, each at one instruction.

    The fragment at the lowest instruction runs until it catches up with another, and joins it.
    """
    everyone = np.arange(batch.size)
    runnable: dict[int, Array] = {0: everyone}
    waiting: dict[int, Array] = {}
    while runnable or waiting:
        if not runnable:
            runnable, waiting = _release(batch, waiting)
        at = min(runnable)
        indices = runnable.pop(at)
        next_stop = min(runnable, default=len(batch.kernel.code))
        _run_fragment(batch, at, indices, next_stop, runnable, waiting)


def _join(fragments: dict[int, Array], at: int, indices: Array) -> None:
    if len(indices):
        fragments[at] = np.union1d(fragments[at], indices) if at in fragments else indices


def _run_fragment(
    batch: Batch,
    at: int,
    indices: Array,
    next_stop: int,
    runnable: dict[int, Array],
    waiting: dict[int, Array],
) -> None:
    """Run threads from one instruction on, until they part, wait, end or meet others."""
    code = batch.kernel.code
    lanes: Lanes = slice(None) if len(indices) == batch.size else indices
    while at < len(code):
        instruction = code[at]
        acting, others = lanes, np.empty(0, np.int64)
        if instruction.predicate is not None:
            chosen = batch.read(instruction.predicate, "pred", lanes) != instruction.negated
            if not chosen.all():
                acting, others = indices[chosen], indices[~chosen]
        at += 1
        if instruction.op not in CONTROL:
            if not isinstance(acting, np.ndarray) or len(acting):
                _execute(batch, instruction, acting)
        elif instruction.op == "bar" and "warp" in instruction.modifiers:
            _execute(batch, instruction, acting)
        else:
            _join(runnable, at, others)
            acting = batch.indices(acting)
            if instruction.op == "bra":
                _join(runnable, batch.kernel.labels[_target(instruction)], acting)
            elif instruction.op in ("bar", "barrier"):
                _join(waiting, at, acting)
            return
        if at == next_stop:
            break
    _join(runnable, at, indices)


def _execute(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    try:
        if instruction.op == "bar":  # lockstep is more than bar.warp.sync asks for
            batch.whole_warps(lanes)
        else:
            HANDLERS[instruction.op][0](batch, instruction, lanes)
    except PtxError as error:
        raise PtxError(f"{error}: {instruction.text}") from None


def _target(instruction: Instruction) -> str:
    return getattr(instruction.operands[0], "name", "")


def _release(batch: Batch, waiting: dict[int, Array]) -> tuple[dict[int, Array], dict[int, Array]]:
    """Open the barriers, now that nobody can run: every block must stand whole before one."""
    for at, indices in waiting.items():
        counts: Any = np.bincount(batch.block_of[indices], minlength=len(batch.blocks))
        partial = counts[(counts > 0) & (counts < batch.threads)]
        if len(partial):
            text = batch.kernel.code[at - 1].text
            raise PtxError(
                f"a barrier is reached by {partial[0]} of a block's {batch.threads} threads: {text}"
            )
    return dict(waiting), {}
