"""PTX text to instructions: statements, operands, registers, parameters and shared variables."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DTYPES: dict[str, type[np.generic]] = {
    "pred": np.bool_,
    **{f"{kind}{bits}": getattr(np, f"uint{bits}") for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": getattr(np, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": getattr(np, f"float{bits}") for bits in (16, 32, 64)},
    "bf16": np.uint16,  # numpy has no bfloat16: its bits
    "bf16x2": np.uint32,
    "f16x2": np.uint32,
    "e4m3": np.uint8,
    "e4m3x2": np.uint16,
}
"""What a value of each PTX type is held as."""

BITS: dict[int, type[np.unsignedinteger[Any]]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
"""Unsigned integers by their size in bytes; registers are kept as these."""


class PtxError(RuntimeError):
    """The PTX does something that is not allowed, or that the interpreter does not know."""


def size_of(kind: str) -> int:
    """Bytes of a value of a PTX type."""
    return np.dtype(DTYPES[kind]).itemsize


@dataclass(frozen=True)
class Register:
    name: str


@dataclass(frozen=True)
class Immediate:
    """A number; floats as their bits, with the size that the text gives them."""

    value: int
    float_size: int = 0


@dataclass(frozen=True)
class Symbol:
    """The address of a shared variable or of a parameter."""

    name: str


@dataclass(frozen=True)
class Special:
    """A register that the hardware fills, such as %tid.x."""

    name: str
    axis: int


@dataclass(frozen=True)
class Address:
    base: Register | Symbol | Immediate
    offset: int


@dataclass(frozen=True)
class Vector:
    parts: tuple[Register | Immediate | Symbol | Special, ...]


Scalar = Register | Immediate | Symbol | Special
Operand = Scalar | Address | Vector


@dataclass(frozen=True)
class Instruction:
    """One instruction: `op.modifiers.types operands`, maybe under a predicate."""

    text: str
    op: str
    modifiers: tuple[str, ...]
    types: tuple[str, ...]
    operands: tuple[Operand, ...]
    predicate: Register | None
    negated: bool

    @property
    def kind(self) -> str:
        """The last type: of the operands, or of the source of a conversion."""
        if not self.types:
            raise PtxError(f"an instruction without a type: {self.text}")
        return self.types[-1]


@dataclass
class Kernel:
    """An entry: its code and what it declares.

    Attributes:
        labels: instruction index of each label.
        registers: declared type of each register.
        parameters: byte offset of each parameter.
        parameter_bytes: size of them all.
        shared: name, alignment and size of each shared variable; size 0 for the dynamic one.
        max_threads: a block's bound by `__launch_bounds__`, None when there is none.
    """

    name: str
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    parameter_bytes: int = 0
    shared: list[tuple[str, int, int]] = field(default_factory=list)
    max_threads: int | None = None


_SPECIALS = ("%tid", "%ntid", "%ctaid", "%nctaid", "%laneid", "%warpid")
_SHARED = re.compile(r"\.shared (?:\.align (\d+) )?\.(\w+) ([\w$]+)(?:\[(\d*)\])?")
_ENTRY = re.compile(r"\.entry ([\w$]+)\s*\((.*?)\)([^{]*)\{(.*?)\n\}", re.S)
_PARAMETER = re.compile(r"\.param (?:\.align (\d+) )?\.(\w+) ([\w$]+)(?:\[(\d+)\])?")


def parse(text: str, containing: str = "") -> dict[str, Kernel]:
    """The entries of a PTX file whose (mangled) names contain a string, by name.

    Raises:
        PtxError: when a line is none that the interpreter can read.
    """
    text = re.sub(r"//[^\n]*", "", text)
    outside = _ENTRY.sub("", text)
    shared = [_shared_variable(match) for match in _SHARED.finditer(outside)]
    kernels = {}
    for name, parameters, bounds, body in _ENTRY.findall(text):
        if containing not in name:
            continue
        kernel = Kernel(name, shared=list(shared))
        offset = 0
        for align, kind, parameter, count in _PARAMETER.findall(parameters):
            unit = size_of(kind)
            offset = -(-offset // int(align or unit)) * int(align or unit)
            kernel.parameters[parameter] = offset
            offset += unit * int(count or 1)
        kernel.parameter_bytes = offset
        if match := re.search(r"\.(?:max|req)ntid (\d+)(?:, (\d+))?(?:, (\d+))?", bounds):
            kernel.max_threads = int(np.prod([int(size or 1) for size in match.groups()]))
        for statement in body.split(";"):
            _read_statement(kernel, statement)
        kernels[name] = kernel
    return kernels


def _shared_variable(match: re.Match[str]) -> tuple[str, int, int]:
    align, kind, name, count = match.groups()
    return name, int(align or size_of(kind)), size_of(kind) * (1 if count is None else int(count or 0))


def _read_statement(kernel: Kernel, statement: str) -> None:
    statement = statement.strip()
    # Scopes open and close, and labels stand, before a statement; a vector's brace is never first.
    while match := re.match(r"[{}]\s*|(\$?[\w$]+):\s*", statement):
        if match[1]:
            kernel.labels[match[1]] = len(kernel.code)
        statement = statement[match.end() :]
    statement = re.sub(r"\s+", " ", statement)
    if not statement or statement.startswith(".pragma"):
        return
    if match := re.match(r"\.reg \.(\w+) (.*)", statement):
        for names in match[2].split(","):
            _declare(kernel, match[1], names.strip())
    elif match := _SHARED.match(statement):
        kernel.shared.append(_shared_variable(match))
    elif statement.startswith("."):
        raise PtxError(f"unknown declaration: {statement}")
    else:
        kernel.code.append(_instruction(kernel, statement))


def _declare(kernel: Kernel, kind: str, names: str) -> None:
    """`%r<9>` or `name`. Scopes of inline asm may declare a name again, but only as the same type."""
    match = re.fullmatch(r"(.*)<(\d+)>", names)
    for name in [f"{match[1]}{i}" for i in range(int(match[2]))] if match else [names]:
        if kernel.registers.setdefault(name, kind) != kind:
            raise PtxError(f"register {name} is declared as {kernel.registers[name]} and as {kind}")


def _instruction(kernel: Kernel, text: str) -> Instruction:
    match = re.fullmatch(r"(?:@(!?)(%?[\w$]+) )?([\w.:]+)(?: (.*))?", text)
    if not match:
        raise PtxError(f"cannot read: {text}")
    op, *words = match[3].replace("::", "_").split(".")
    operands = re.split(r",(?![^{]*\})", match[4]) if match[4] else []
    return Instruction(
        text=text,
        op=op,
        modifiers=tuple(word for word in words if word not in DTYPES),
        types=tuple(word for word in words if word in DTYPES),
        operands=tuple(_operand(kernel, operand.strip()) for operand in operands),
        predicate=Register(match[2]) if match[2] else None,
        negated=match[1] == "!",
    )


def _operand(kernel: Kernel, text: str) -> Operand:
    if text[0] == "{":
        return Vector(tuple(_scalar(kernel, part.strip()) for part in text[1:-1].split(",")))
    if text[0] == "[":
        match = re.fullmatch(r"\[([^+\]]+?)\s*(?:\+\s*(-?\w+))?\]", text)
        base = _scalar(kernel, match[1]) if match else None
        if not match or not isinstance(base, Register | Symbol | Immediate):
            raise PtxError(f"cannot read the address {text}")
        return Address(base, int(match[2] or "0", 0))
    if "|" in text:  # two results, as of shfl
        return Vector(tuple(_scalar(kernel, part.strip()) for part in text.split("|")))
    return _scalar(kernel, text)


def _scalar(kernel: Kernel, text: str) -> Scalar:
    if text == "_" or text in kernel.registers:
        return Register(text)
    base, _, axis = text.partition(".")
    if base in _SPECIALS:
        return Special(base, "xyz".index(axis or "x"))
    if text.startswith(("0f", "0F")):
        return Immediate(int(text[2:], 16), float_size=4)
    if text.startswith(("0d", "0D")):
        return Immediate(struct.unpack(">Q", bytes.fromhex(text[2:]))[0], float_size=8)
    if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
        return Immediate(int(text.rstrip("U"), 0))
    if re.match(r"[\w$]", text):
        return Symbol(text)  # a label, a parameter or a shared variable
    raise PtxError(f"unknown operand {text}")
