"""The state of a batch of blocks, how instructions read and write it, and the table of instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.kernels.ptx.memory import SHARED_WINDOW, Array, GlobalMemory, SharedMemory
from tests.kernels.ptx.syntax import (
    BITS,
    DTYPES,
    Address,
    Immediate,
    Instruction,
    Kernel,
    Operand,
    PtxError,
    Register,
    Special,
    Symbol,
    Vector,
    size_of,
)

Lanes = slice | np.ndarray[Any, Any]
"""Which threads of the batch act: all of them (a slice) or their sorted indices."""

WARP = 32


@dataclass
class Copies:
    """One cp.async of some lanes, on its way to shared memory: lane, group, address, [., width] bytes."""

    lanes: Array
    group: Array
    addresses: Array
    values: Array


@dataclass
class Batch:
    """Blocks that run together, one lane a thread.

    Attributes:
        blocks: [blocks, 3] indices of the blocks.
        symbols: addresses of parameters (global) and of shared variables (within a block).
        in_flight: asynchronous copies that no wait has landed yet.
        committed: [lanes], groups of copies that each lane has committed.
    """

    kernel: Kernel
    memory: GlobalMemory
    shared: SharedMemory
    blocks: Array
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    symbols: dict[str, int]
    in_flight: list[Copies] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.threads = int(np.prod(self.block))
        self.size = self.threads * len(self.blocks)
        self.thread = np.tile(np.arange(self.threads), len(self.blocks))
        self.block_of = np.repeat(np.arange(len(self.blocks)), self.threads)
        self.committed = np.zeros(self.size, np.int64)
        self._registers: dict[str, Array] = {}
        for name, kind in self.kernel.registers.items():
            if kind == "pred":
                self._registers[name] = np.zeros(self.size, np.bool_)
            else:
                bits = BITS[size_of(kind)]
                self._registers[name] = np.full(self.size, np.iinfo(bits).max, bits)  # NaN

    def indices(self, lanes: Lanes) -> Array:
        return np.arange(self.size) if isinstance(lanes, slice) else lanes

    def read(self, operand: Operand, kind: str, lanes: Lanes) -> Any:
        """An operand as a PTX type: [lanes], or one number where all lanes have the same."""
        dtype = np.dtype(DTYPES[kind])
        if isinstance(operand, Register):
            values = self._registers[operand.name]
            if values.dtype == np.bool_ or dtype == np.bool_:
                if values.dtype != dtype:
                    raise PtxError(f"{operand.name} is read as {kind}, but declared otherwise")
                return values[lanes]
            if values.dtype.itemsize == dtype.itemsize:
                return values.view(dtype)[lanes]
            return values[lanes].astype(BITS[dtype.itemsize]).view(dtype)
        if isinstance(operand, Immediate):
            return _immediate(operand, dtype)
        if isinstance(operand, Symbol):
            return dtype.type(self._symbol(operand))
        if isinstance(operand, Special):
            return self._special(operand, lanes).astype(dtype)
        raise PtxError(f"cannot read {operand} as one value")

    def write(self, operand: Operand, values: Any, lanes: Lanes) -> None:
        """Set a register; a narrower value is extended by its own sign."""
        if not isinstance(operand, Register):
            raise PtxError(f"{operand} is no register to write to")
        if operand.name == "_":
            return
        register = self._registers[operand.name]
        if values.dtype != register.dtype:
            if values.dtype.itemsize == register.dtype.itemsize and values.dtype != np.bool_:
                values = values.view(register.dtype)
            elif values.dtype.kind in "ui" and register.dtype != np.bool_:
                values = values.astype(register.dtype)
            else:
                raise PtxError(f"{operand.name} cannot hold {values.dtype}")
        register[lanes] = values

    def addresses(self, operand: Operand, lanes: Lanes, kind: str = "s64") -> Array:
        """[lanes] int64 of an operand such as [%rd1+16]."""
        if not isinstance(operand, Address):
            raise PtxError(f"{operand} is no address")
        base = self.read(operand.base, kind, lanes)
        return np.broadcast_to(np.asarray(base, np.int64) + operand.offset, len(self.indices(lanes)))

    def load(self, space: str, addresses: Array, width: int, lanes: Lanes) -> Array:
        """[lanes, width] bytes from a state space."""
        if space == "shared":
            return self.shared.load(self.block_of[lanes], addresses, width)
        return self.memory.load(addresses, width)

    def store(self, space: str, addresses: Array, values: Array, lanes: Lanes) -> None:
        if space == "shared":
            self.shared.store(self.block_of[lanes], addresses, values)
        else:
            self.memory.store(addresses, values)

    def whole_warps(self, lanes: Lanes) -> int:
        """Number of warps that act.

        Raises:
            PtxError: when a warp acts in part; the instruction asks for all its threads.
        """
        indices = self.indices(lanes)
        grid = indices[: len(indices) // WARP * WARP].reshape(-1, WARP)
        whole = len(indices) % WARP == 0 and (grid == grid[:, :1] // WARP * WARP + np.arange(WARP)).all()
        if not whole or self.threads % WARP:
            raise PtxError("an instruction of the whole warp is reached by a part of it")
        return len(indices) // WARP

    def _symbol(self, symbol: Symbol) -> int:
        if symbol.name not in self.symbols:
            raise PtxError(f"unknown symbol {symbol.name}")
        return self.symbols[symbol.name]

    def _special(self, special: Special, lanes: Lanes) -> Array:
        thread = self.thread[lanes]
        if special.name == "%tid":
            return thread // int(np.prod(self.block[: special.axis])) % self.block[special.axis]
        if special.name == "%ctaid":
            return self.blocks[self.block_of[lanes], special.axis]
        if special.name in ("%laneid", "%warpid"):
            return thread % WARP if special.name == "%laneid" else thread // WARP
        sizes = self.block if special.name == "%ntid" else self.grid
        return np.full(len(thread), sizes[special.axis])


def _immediate(operand: Immediate, dtype: np.dtype[Any]) -> Any:
    size = operand.float_size or dtype.itemsize
    if size != dtype.itemsize:
        raise PtxError(f"a float of {size} bytes where {dtype} is due")
    if dtype == np.bool_:
        return np.bool_(operand.value)
    if dtype.kind == "f" and not operand.float_size:
        return dtype.type(operand.value)
    return BITS[size](operand.value % (1 << 8 * size)).view(dtype)


def generic(addresses: Any, *, into_window: bool) -> Any:
    """Shared addresses to generic ones, or back."""
    return addresses + (SHARED_WINDOW if into_window else -SHARED_WINDOW)


def parts(operand: Operand) -> tuple[Operand, ...]:
    """Registers of a vector operand; of a single one, itself."""
    return operand.parts if isinstance(operand, Vector) else (operand,)


Handler = Callable[[Batch, Instruction, Lanes], None]
HANDLERS: dict[str, tuple[Handler, frozenset[str]]] = {}


def handles(op: str, modifiers: str = "") -> Callable[[Handler], Handler]:
    """Enter a function into the table, with the modifiers that it knows of; all others are refused."""

    def enter(handler: Handler) -> Handler:
        HANDLERS[op] = handler, frozenset(modifiers.split())
        return handler

    return enter
