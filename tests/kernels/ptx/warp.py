"""Instructions of whole warps, and asynchronous copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.kernels.ptx.memory import Array
from tests.kernels.ptx.scalar import E4M3
from tests.kernels.ptx.state import WARP, Batch, Copies, Lanes, handles, parts
from tests.kernels.ptx.syntax import Immediate, Instruction, PtxError

GROUPS, QUADS = 8, 4
"""A warp as `mma` sees it: 8 groups (rows of a fragment) of 4 lanes (pairs of columns)."""


@handles("shfl", "sync bfly idx up down")
def shuffle(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    warps = batch.whole_warps(lanes)
    value, by, clamp = (
        np.broadcast_to(batch.read(operand, "b32", lanes), warps * WARP).reshape(warps, WARP)
        for operand in instruction.operands[1:4]
    )
    lane = np.arange(WARP)
    mode = instruction.modifiers[1]
    if np.any(clamp != (0 if mode == "up" else 31)):
        raise PtxError("shuffles within a part of a warp are not known")
    by = by.astype(np.int64)
    source = {"bfly": lane ^ by, "idx": by & 31, "up": lane - by, "down": lane + by}[mode]
    inside = (source >= 0) & (source < WARP)
    result = np.take_along_axis(value, np.where(inside, source, lane), 1)
    target, *valid = parts(instruction.operands[0])
    batch.write(target, result.reshape(-1), lanes)
    for register in valid:
        batch.write(register, inside.reshape(-1), lanes)


@handles("ldmatrix", "sync aligned m8n8 x1 x2 x4 trans shared shared_cta")
def load_matrix(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    """8 x 8 matrices of 16 bits; lanes 8i..8i+7 give the row addresses of matrix i."""
    warps = batch.whole_warps(lanes)
    registers = parts(instruction.operands[0])
    indices = batch.indices(lanes).reshape(warps, WARP)[:, : GROUPS * len(registers)]
    addresses = batch.addresses(instruction.operands[1], lanes, "u32").reshape(warps, WARP)
    used = addresses[:, : GROUPS * len(registers)].reshape(-1)
    rows = batch.load("shared", used, 16, indices.reshape(-1))
    matrices = rows.view(np.uint16).reshape(warps, len(registers), GROUPS, GROUPS)
    if "trans" in instruction.modifiers:
        matrices = matrices.swapaxes(2, 3)
    words = np.ascontiguousarray(matrices).view(np.uint32).reshape(warps, len(registers), WARP)
    for i, register in enumerate(registers):
        batch.write(register, words[:, i].reshape(-1), lanes)


NUMBERS = np.concatenate((E4M3, -E4M3))
"""Of all bytes, as e4m3."""


def _elements(words: Array, kind: str) -> Array:
    """The floats of words, low bits first: [...] uint32 to [..., 2], or 4 of e4m3, float64."""
    if kind == "e4m3":
        return NUMBERS[words.view(np.uint8).reshape(*words.shape, 4)]
    if kind == "f16":
        return words.view(np.float16).reshape(*words.shape, 2).astype(np.float64)
    both = np.stack((words << np.uint32(16), words & np.uint32(0xFFFF0000)), -1)
    return both.view(np.float32).astype(np.float64)


PRODUCTS = {"f16": "m16n8k16", "bf16": "m16n8k16", "e4m3": "m16n8k32"}


@handles("mma", "sync aligned m16n8k16 m16n8k32 row col")
def multiply_matrices(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    """D [16, 8] = A [16, 16] B [16, 8] + C of each warp, 16-bit floats into float32; of e4m3 32 for 16.

    Lane 4g + t holds of A the rows g and g + 8, columns 2t, 2t + 1 and these plus 8 (of e4m3 4t ... 4t + 3
    and these plus 16); of B the same numbers of row and column exchanged; of C and D the rows g and g + 8,
    columns 2t and 2t + 1.
    """
    target, a, b, c = (parts(operand) for operand in instruction.operands)
    kinds = instruction.types
    if len(kinds) != 4 or kinds[0] != "f32" or kinds[3] != "f32" or kinds[1] != kinds[2]:
        raise PtxError(f"mma of {kinds} is not known")
    if instruction.modifiers[2:] != (PRODUCTS.get(kinds[1]), "row", "col"):
        raise PtxError("only mma.row.col of m16n8k16 for f16 and bf16, and of m16n8k32 for e4m3, is known")
    warps = batch.whole_warps(lanes)

    def fragment(register: Any, kind: str) -> Array:
        words = np.ascontiguousarray(np.broadcast_to(batch.read(register, kind, lanes), warps * WARP))
        return words.reshape(warps, GROUPS, QUADS)

    def rows(register: Any) -> Array:
        return _elements(fragment(register, "b32"), kinds[1]).reshape(warps, GROUPS, -1)

    a0, a1, a2, a3 = (rows(register) for register in a)
    left = np.concatenate((np.concatenate((a0, a2), 2), np.concatenate((a1, a3), 2)), 1)
    right = np.concatenate([rows(register) for register in b], 2).swapaxes(1, 2)
    product = left @ right
    for i, (register, summand) in enumerate(zip(target, [fragment(r, "f32") for r in c])):
        tile = product[:, GROUPS * (i // 2) : GROUPS * (i // 2 + 1), i % 2 :: 2]
        batch.write(register, (tile + summand).astype(np.float32).reshape(-1), lanes)


@handles("cp", "async ca cg shared shared_cta global L2_128B L2_64B L2_256B commit_group wait_group wait_all")
def copy_async(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    """cp.async and its groups. A copy is read when it is issued, and lands when it is waited for."""
    if "commit_group" in instruction.modifiers:
        batch.committed[lanes] += 1
    elif "wait_all" in instruction.modifiers:
        batch.committed[lanes] += 1
        _land(batch, lanes, 0)
    elif "wait_group" in instruction.modifiers:
        (pending,) = instruction.operands
        if not isinstance(pending, Immediate):
            raise PtxError("wait_group needs a number")
        _land(batch, lanes, pending.value)
    else:
        _issue(batch, instruction, lanes)


def _issue(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    target, source, size, *filled = instruction.operands
    if not isinstance(size, Immediate):
        raise PtxError("the size of cp.async must be a number")
    addresses = batch.addresses(source, lanes)
    count = batch.read(filled[0], "u32", lanes) if filled else size.value
    count = np.broadcast_to(np.asarray(count, np.int64), len(addresses))
    if np.any((count != 0) & (count != size.value)):
        raise PtxError("only whole or empty copies are known")
    values = np.zeros((len(addresses), size.value), np.uint8)
    whole = count != 0
    if whole.any():  # an empty copy reads nothing: its address may lie anywhere
        values[whole] = batch.memory.load(addresses[whole], size.value)
    indices = batch.indices(lanes)
    landing = batch.addresses(target, lanes, "u32")
    batch.in_flight.append(Copies(indices, batch.committed[lanes].copy(), landing, values))


def _land(batch: Batch, lanes: Lanes, pending: int) -> None:
    """Land all copies of these lanes but those of their newest `pending` groups."""
    waits = np.zeros(batch.size, np.bool_)
    waits[lanes] = True
    left = []
    for copies in batch.in_flight:
        due = waits[copies.lanes] & (copies.group < batch.committed[copies.lanes] - pending)
        if due.any():
            batch.store("shared", copies.addresses[due], copies.values[due], copies.lanes[due])
        if not due.all():
            keep = ~due
            left.append(
                Copies(copies.lanes[keep], copies.group[keep], copies.addresses[keep], copies.values[keep])
            )
    batch.in_flight = left
