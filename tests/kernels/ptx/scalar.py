"""Instructions of single threads: moves, memory, conversions, arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from tests.kernels.ptx.memory import SHARED_WINDOW, Array
from tests.kernels.ptx.state import Batch, Lanes, generic, handles, parts
from tests.kernels.ptx.syntax import BITS, DTYPES, Instruction, PtxError, Vector, size_of

CACHE_HINTS = "nc ca cg cs lu cv wb wt volatile relaxed weak L2_64B L2_128B L2_256B L1_no_allocate"
VECTORS = {"v2": 2, "v4": 4}


def _space(instruction: Instruction, addresses: Array) -> tuple[str, Array]:
    """The state space of an access, generic addresses resolved."""
    for modifier in instruction.modifiers:
        space = modifier.partition("_")[0]  # shared::cta
        if space in ("global", "shared", "param"):
            return space, addresses
    in_window = addresses >= SHARED_WINDOW
    if in_window.all():
        return "shared", generic(addresses, into_window=False)
    if in_window.any():
        raise PtxError("one generic access reaches global and shared memory")
    return "global", addresses


def _check_count(instruction: Instruction, registers: int) -> None:
    expected = next((VECTORS[m] for m in instruction.modifiers if m in VECTORS), 1)
    if registers != expected:
        raise PtxError(f"{registers} registers for a vector of {expected}")


@handles("ld", f"global shared shared_cta param v2 v4 {CACHE_HINTS}")
def load(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    registers = parts(instruction.operands[0])
    _check_count(instruction, len(registers))
    size = size_of(instruction.kind)
    space, addresses = _space(instruction, batch.addresses(instruction.operands[1], lanes))
    raw = batch.load(space, addresses, size * len(registers), lanes)
    values = np.ascontiguousarray(raw).view(DTYPES[instruction.kind])
    for column, register in enumerate(registers):
        batch.write(register, np.ascontiguousarray(values[:, column]), lanes)


@handles("st", f"global shared shared_cta v2 v4 {CACHE_HINTS}")
def store(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    registers = parts(instruction.operands[1])
    _check_count(instruction, len(registers))
    space, addresses = _space(instruction, batch.addresses(instruction.operands[0], lanes))
    values = np.empty((len(addresses), len(registers)), DTYPES[instruction.kind])
    for column, register in enumerate(registers):
        values[:, column] = batch.read(register, instruction.kind, lanes)
    batch.store(space, addresses, values.view(np.uint8), lanes)


@handles("mov")
def move(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    """Also packs {low, high} into a register, and takes one apart."""
    target, source = instruction.operands
    size = size_of(instruction.kind) if instruction.kind != "pred" else 0
    if isinstance(source, Vector):
        part = size // len(source.parts)
        packed: Any = 0
        for i, register in enumerate(source.parts):
            bits = batch.read(register, f"b{8 * part}", lanes).astype(BITS[size])
            packed = packed | bits << BITS[size](8 * part * i)
        batch.write(target, packed, lanes)
    elif isinstance(target, Vector):
        whole = batch.read(source, f"b{8 * size}", lanes)
        part = size // len(target.parts)
        values = [(whole >> BITS[size](8 * part * i)).astype(BITS[part]) for i in range(len(target.parts))]
        for register, value in zip(target.parts, values):
            batch.write(register, value, lanes)
    else:
        batch.write(target, batch.read(source, instruction.kind, lanes), lanes)


@handles("cvta", "to global shared shared_cta param")
def convert_address(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    address = batch.read(instruction.operands[1], instruction.kind, lanes)
    if any(modifier.startswith("shared") for modifier in instruction.modifiers):
        address = generic(address.astype(np.int64), into_window="to" not in instruction.modifiers)
        address = address.astype(DTYPES[instruction.kind])
    batch.write(instruction.operands[0], address, lanes)


def to_bfloat16(x: Any) -> Any:
    """float32 to the bits of the nearest bfloat16, ties to even; uint16."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
    return np.where(np.isnan(x), 0x7FFF, rounded).astype(np.uint16)


def to_half(x: Any) -> Any:
    """float32 to the bits of the nearest float16; uint16."""
    return np.ascontiguousarray(x, np.float32).astype(np.float16).view(np.uint16)


E4M3 = np.array([(f / 8 if e == 0 else 1 + f / 8) * 2.0 ** (max(e, 1) - 7) for e, f in np.ndindex(16, 8)])
"""The numbers of the bytes 0 ... 127; the last is NaN."""
E4M3[127] = np.nan
E4M3_HALVES = (E4M3[1:127] + E4M3[:126]) / 2


def to_e4m3(x: Any) -> Any:
    """float32 to the byte of the nearest e4m3, ties to even, 448 at most; uint8."""
    x = np.asarray(x, np.float64)
    below, above = (np.searchsorted(E4M3_HALVES, np.abs(x), side) for side in ("left", "right"))
    size = np.where(below % 2 == 0, below, above)  # they differ at a tie
    return np.where(np.isnan(x), 0x7F, size | np.signbit(x) * 0x80).astype(np.uint8)


TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@handles("cvt", "rn ftz satfinite rni rzi rmi rpi")
def convert(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    target, source = instruction.types
    values = [batch.read(operand, source, lanes) for operand in instruction.operands[1:]]
    if (target == "e4m3x2") != ("satfinite" in instruction.modifiers):
        raise PtxError("conversions saturate to e4m3 alone")
    if target == "e4m3x2":
        upper, lower = (np.asarray(to_e4m3(value), np.uint16) for value in values)
        batch.write(instruction.operands[0], upper << np.uint16(8) | lower, lanes)
        return
    if target in ("bf16x2", "f16x2"):  # the first source goes to the upper half
        narrow = to_bfloat16 if target == "bf16x2" else to_half
        high, low = (np.asarray(narrow(value), np.uint32) for value in values)
        batch.write(instruction.operands[0], high << np.uint32(16) | low, lanes)
        return
    (value,) = values
    if source == "bf16":
        value = (np.asarray(value, np.uint32) << np.uint32(16)).view(np.float32)
    if target == "bf16":
        batch.write(instruction.operands[0], to_bfloat16(value), lanes)
        return
    if value.dtype.kind == "f" and DTYPES[target](0).dtype.kind in "iu":
        rounding = [TO_INTEGER[m] for m in instruction.modifiers if m in TO_INTEGER]
        limits = np.iinfo(cast(type[np.integer[Any]], DTYPES[target]))  # conversions saturate
        value = np.clip(np.nan_to_num(rounding[0](value.astype(np.float64))), limits.min, limits.max)
    batch.write(instruction.operands[0], np.asarray(value).astype(DTYPES[target]), lanes)


def _fused(x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once (a product of two float32 is exact in float64)."""
    return np.float64(x) * y + z


def _shifted(shift: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A shift by any amount: beyond the width nothing, or the sign, is left."""

    def by(x: Any, amount: Any) -> Any:
        bits = 8 * x.dtype.itemsize
        amount = np.asarray(amount).view(np.uint32)
        inside = shift(x, np.minimum(amount, bits - 1).astype(x.dtype))
        signed_right = shift is np.right_shift and x.dtype.kind == "i"
        return inside if signed_right else np.where(amount < bits, inside, 0)

    return by


FLOAT = "rn ftz approx full"
ELEMENTWISE: dict[str, tuple[str, Callable[..., Any]]] = {
    "add": (FLOAT, np.add),
    "sub": (FLOAT, np.subtract),
    "min": ("ftz", np.fmin),
    "max": ("ftz", np.fmax),
    "and": ("", np.bitwise_and),
    "or": ("", np.bitwise_or),
    "xor": ("", np.bitwise_xor),
    "not": ("", np.invert),
    "neg": ("ftz", np.negative),
    "abs": ("ftz", np.abs),
    "fma": (FLOAT, _fused),
    "ex2": (FLOAT, np.exp2),
    "lg2": (FLOAT, np.log2),
    "rcp": (FLOAT, np.reciprocal),
    "sqrt": (FLOAT, np.sqrt),
    "rsqrt": (FLOAT, lambda x: 1 / np.sqrt(np.float64(x))),
}


def _enter_elementwise(op: str, modifiers: str, function: Callable[..., Any]) -> None:
    @handles(op, modifiers)
    def run(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
        kind = instruction.kind
        sources = [batch.read(operand, kind, lanes) for operand in instruction.operands[1:]]
        batch.write(instruction.operands[0], np.asarray(function(*sources)).astype(DTYPES[kind]), lanes)


for _op, (_modifiers, _function) in ELEMENTWISE.items():
    _enter_elementwise(_op, _modifiers, _function)


@handles("shl")
def shift_left(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    _shift(batch, instruction, lanes, np.left_shift)


@handles("shr")
def shift_right(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    _shift(batch, instruction, lanes, np.right_shift)


def _shift(batch: Batch, instruction: Instruction, lanes: Lanes, shift: Callable[[Any, Any], Any]) -> None:
    kind = instruction.kind
    value = np.asarray(batch.read(instruction.operands[1], kind, lanes))
    amount = batch.read(instruction.operands[2], "u32", lanes)
    batch.write(instruction.operands[0], _shifted(shift)(value, amount).astype(DTYPES[kind]), lanes)


def _widened(kind: str) -> str:
    return f"{kind[0]}{16 * size_of(kind)}"


def _product(batch: Batch, instruction: Instruction, lanes: Lanes) -> tuple[Any, str]:
    """The product of the first two sources, and the type that it has."""
    kind = instruction.kind
    x, y = (batch.read(operand, kind, lanes) for operand in instruction.operands[1:3])
    if kind[0] == "f" or "lo" in instruction.modifiers:
        return np.asarray(x * y), kind
    if size_of(kind) > 4:
        raise PtxError("products wider than 64 bits are not known")
    wide = _widened(kind)
    product = np.asarray(x).astype(DTYPES[wide]) * np.asarray(y).astype(DTYPES[wide])
    if "hi" in instruction.modifiers:
        return (product >> DTYPES[wide](8 * size_of(kind))).astype(DTYPES[kind]), kind
    return product, wide


@handles("mul", f"lo hi wide {FLOAT}")
def multiply(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    batch.write(instruction.operands[0], _product(batch, instruction, lanes)[0], lanes)


@handles("mad", "lo hi wide")
def multiply_add(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    product, kind = _product(batch, instruction, lanes)
    summand = batch.read(instruction.operands[3], kind, lanes)
    batch.write(instruction.operands[0], np.asarray(product + summand), lanes)


def _divide(batch: Batch, instruction: Instruction, lanes: Lanes) -> tuple[Any, Any, Any]:
    """Dividend, divisor and quotient; integers are cut towards zero."""
    kind = instruction.kind
    x, y = (np.asarray(batch.read(operand, kind, lanes)) for operand in instruction.operands[1:3])
    if kind[0] == "f":
        return x, y, x / y
    if np.any(y == 0):
        raise PtxError("an integer is divided by zero")
    cut = np.abs(x) // np.abs(y) if kind[0] == "s" else x // y
    return x, y, np.where((x < 0) != (y < 0), -cut, cut) if kind[0] == "s" else cut


@handles("div", FLOAT)
def divide(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    quotient = _divide(batch, instruction, lanes)[2]
    batch.write(instruction.operands[0], quotient.astype(DTYPES[instruction.kind]), lanes)


@handles("rem")
def remainder(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    x, y, quotient = _divide(batch, instruction, lanes)
    batch.write(instruction.operands[0], (x - quotient * y).astype(DTYPES[instruction.kind]), lanes)


@handles("bfi")
def insert_bits(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    """Put the low `count` bits of the first source into the second, from bit `start` on."""
    field, into, start, count = (
        np.asarray(batch.read(operand, "u32", lanes)).astype(np.uint64)
        for operand in instruction.operands[1:]
    )
    mask = ((np.uint64(1) << count) - np.uint64(1)) << start
    batch.write(instruction.operands[0], ((into & ~mask) | (field << start & mask)).astype(np.uint32), lanes)


@handles("prmt")
def permute_bytes(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    """Four bytes picked from eight; bit 3 of a pick repeats the byte's sign instead."""
    low, high, picks = (
        np.asarray(batch.read(operand, "u32", lanes)).astype(np.uint64)
        for operand in instruction.operands[1:]
    )
    source = high << np.uint64(32) | low
    result = np.zeros((), np.uint64)
    for i in range(4):
        pick = picks >> np.uint64(4 * i) & np.uint64(15)
        byte = source >> (pick & np.uint64(7)) * np.uint64(8) & np.uint64(255)
        byte = np.where(pick & np.uint64(8), np.where(byte & np.uint64(128), 255, 0), byte)
        result = result | byte.astype(np.uint64) << np.uint64(8 * i)
    batch.write(instruction.operands[0], result.astype(np.uint32), lanes)


@handles("selp")
def select(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    target, yes, no, choice = instruction.operands
    values = [batch.read(operand, instruction.kind, lanes) for operand in (yes, no)]
    batch.write(target, np.where(batch.read(choice, "pred", lanes), *values), lanes)


COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
COMBINE = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


@handles("setp", " ".join([*COMPARE, "equ", "neu", "ltu", "leu", "gtu", "geu", "nan", *COMBINE, "ftz"]))
def compare(batch: Batch, instruction: Instruction, lanes: Lanes) -> None:
    x, y = (batch.read(operand, instruction.kind, lanes) for operand in instruction.operands[1:3])
    name = instruction.modifiers[0]
    if instruction.kind[0] == "f" and name != "ne":
        unordered = np.isnan(x) | np.isnan(y)
        if name == "nan":
            result = unordered
        else:
            result = COMPARE[name](x, y) if name in COMPARE else COMPARE[name[:-1]](x, y) | unordered
    else:
        result = COMPARE[name](x, y)
        if name == "ne" and instruction.kind[0] == "f":
            result = result & ~(np.isnan(x) | np.isnan(y))
    for combine in set(COMBINE) & set(instruction.modifiers):
        result = COMBINE[combine](result, batch.read(instruction.operands[3], "pred", lanes))
    batch.write(instruction.operands[0], np.asarray(result), lanes)
