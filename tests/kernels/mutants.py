"""Deliberate faults in the kernels, each of which the checks must notice.

    python -m tests.kernels.mutants [NUMBER ...]

tries them and says what gave each away.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.kernels.emulator import CSRC, KERNELS, build


class Mutant(NamedTuple):
    """A fault: in a kernel's device code, or in what it shares with others, `old` becomes `new`."""

    kernel: str
    old: str
    new: str
    what: str


ADD, EMA, NORM, RING = KERNELS
MUTANTS = (
    Mutant(ADD, "row < params.rows ? params.vectors : 0", "params.vectors", "rows past the last are touched"),
    Mutant(ADD, "vector(v) < vectors[r]", "vectors[r] > 0", "channels past a row's last are touched"),
    Mutant(ADD, "&& vector < params.vectors", "", "parameters are read past their end"),
    Mutant(
        ADD, "r < Tile::kRows; ++r, row += Tile::kGroups", "r < Tile::kRows; ++r", "one row for all of a lane"
    ),
    Mutant(ADD, "lanes = kLanes / 2", "lanes = kLanes / 4", "half of a row's lanes are left out"),
    Mutant(ADD, "lanes = kLanes / 2", "lanes = 16", "two rows of a warp are added up"),
    Mutant(ADD, "rows.holds(r, v) ? mean[r] : 0.0f", "mean[r]", "absent channels are as far as the mean"),
    Mutant(ADD, "mean[r]) * params.inverse_dim", "mean[r])", "the mean is a sum"),
    Mutant(ADD, "if (!params.rms) {", "if (true) {", "an RMS norm subtracts the mean"),
    Mutant(ADD, "if (!params.rms) {", "if (false) {", "a LayerNorm does not subtract the mean"),
    Mutant(ADD, "* params.inverse_dim + params.eps", "* params.inverse_dim", "no epsilon"),
    Mutant(ADD, "gate[i], x[i], bias[i]", "1.0f, x[i], bias[i]", "no gate"),
    Mutant(ADD, "gate[i], x[i], bias[i]", "gate[i], x[i], 0.0f", "no bias"),
    Mutant(
        ADD, "params.gate, rows.vector(v), 1.0f", "params.gate, rows.vector(v), 0.0f", "an absent gate closes"
    ),
    Mutant(ADD, "begin, residual_words);", "0, residual_words);", "the first part's residual for all"),
    Mutant(
        ADD,
        "    if (params.sum != nullptr) rows.store(params.sum, begin, words);\n",
        "",
        "the sum is not stored",
    ),
    Mutant(ADD, "weight[i], shift[i]", "weight[i], 0.0f", "no shift"),
    Mutant(ADD, "        if (params.silu) {", "        if (!params.silu) {", "SiLU where none is asked for"),
    Mutant(ADD, "-static_cast<float>(kLog2E)", "static_cast<float>(kLog2E)", "the sigmoid is mirrored"),
    Mutant(ADD, "if (params.weight != nullptr) norm", "norm", "a norm without weights"),
    Mutant(
        EMA,
        "token >= params.tokens || !slot_exists(slot, params.slots)",
        "!slot_exists(slot, params.slots)",
        "no bound on tokens",
    ),
    Mutant(
        EMA,
        "token >= params.tokens || !slot_exists(slot, params.slots)",
        "token >= params.tokens",
        "a slot outside the cache is used",
    ),
    Mutant(EMA, "if (is_keys) {", "if (true) {", "values are turned"),
    Mutant(EMA, "pair < params.time_pairs", "pair <= params.time_pairs", "one pair too many turns"),
    Mutant(EMA, "high - (low >> 15)", "high", "the slot's rounding is not taken back"),
    Mutant(EMA, "(even + 0x8000) >> 16", "even >> 16", "the slot is cut off, not rounded"),
    Mutant(EMA, "exact[i], evicted[i], params", "evicted[i], exact[i], params", "old and new are swapped"),
    Mutant(
        EMA,
        "slot * params.tokens * half.cache_strides.token",
        "slot * half.cache_strides.token",
        "the evicted slot is elsewhere",
    ),
    Mutant(EMA, "params.halves[is_keys ? 0 : 1]", "params.halves[0]", "keys are updated twice"),
    Mutant(NORM, "  ptx::sync_threads();\n", "", "no barrier before the warps' sums are read"),
    Mutant(NORM, "if (lane == 0) {", "if (warp == 0) {", "only one warp leaves its sum"),
    Mutant(NORM, "lanes = kLanes / 2", "lanes = kLanes / 4", "half a warp's sum is lost"),
    Mutant(NORM, "if (!active) return;", "", "threads past the last channel go on"),
    Mutant(
        NORM,
        "  block_sum(q_sum, k_sum);\n  if (!active) return;\n",
        "  if (!active) return;\n  block_sum(q_sum, k_sum);\n",
        "threads leave before a barrier",
    ),
    Mutant(NORM, "q_sum / dim + params.eps", "q_sum / dim", "no epsilon"),
    Mutant(NORM, "* scale * weight[i]", "* scale", "no weight"),
    Mutant(NORM, "token * kHeadDim + within, rope", "token * kHeadDim, rope", "one angle for all"),
    Mutant(NORM, "active && slot_exists(slot, params.slots)", "active", "any slot is written"),
    Mutant(
        NORM,
        "2 * kNormMaxWarps * sizeof(float)",
        "kNormMaxWarps * sizeof(float)",
        "shared memory for one sum of two",
    ),
    Mutant(RING, "copy_async_wait<0>", "copy_async_wait<1>", "one group of copies is not waited for"),
    Mutant(
        RING,
        "    ptx::sync_threads();\n    if (tile + 1 < tiles) copy_tile(tile + 1);\n",
        "    if (tile + 1 < tiles) copy_tile(tile + 1);\n",
        "no barrier between the copy and its readers",
    ),
    Mutant(
        RING,
        "    ptx::sync_threads();\n    if (tile + 1 < tiles) copy_tile(tile + 1);\n",
        "    if (tile + 1 < tiles) copy_tile(tile + 1);\n    ptx::sync_threads();\n",
        "a buffer is refilled before everyone has read it",
    ),
    Mutant(
        RING,
        "  ptx::sync_warp();\n  constexpr int kStep",
        "  constexpr int kStep",
        "lanes read rows that others have not written",
    ),
    Mutant(RING, "(chunk ^ (row % 8))", "chunk", "no swizzle"),
    Mutant(RING, "if (valid < Tile::kKeys) state.mask", "if (false) state.mask", "no mask on the tail"),
    Mutant(RING, "column + i % 2 < valid", "column + i % 2 <= valid", "one key too many"),
    Mutant(RING, "load_matrices_transposed(v", "load_matrices(v", "values are not transposed"),
    Mutant(RING, "q[m], k[0], k[1]", "q[m], k[0], k[2]", "operands of a product are mixed up"),
    Mutant(RING, "w[m][1] = ptx::pack<T>(left[2]", "w[m][2] = ptx::pack<T>(left[2]", "fragment order"),
    Mutant(RING, "multiply_add<T>(out[m][2 * d], w", "multiply_add<Fp16>(out[m][2 * d], w", "fp16 for bf16"),
    Mutant(RING, "out[m][d][2 * row] *= shrink", "out[m][d][2 * row] *= 1", "old output is not rescaled"),
    Mutant(RING, "sum[m][row] *= shrink", "sum[m][row] *= 1", "the old sum is not rescaled"),
    Mutant(RING, "shuffle_xor(peak, 2)", "shuffle_xor(peak, 1)", "a row's lanes disagree on its peak"),
    Mutant(RING, "if (query >= queries) continue;", "", "rows past the last query are written"),
    Mutant(RING, "first + i < valid", "true", "rows past the last are read"),
    Mutant(RING, "kQueryBytes + 4 * kKeyBytes", "kQueryBytes + 3 * kKeyBytes", "shared memory is short"),
)


class Caught(NamedTuple):
    """Whether the checks failed on a mutant, and what they said."""

    flagged: bool
    words: str


def build_mutant(mutant: Mutant, folder: Path, **options: Any) -> Path:
    """Build the kernel with the fault, in a folder of its own; options are those of `build`.

    Raises:
        ValueError: when the fault does not fit the sources any more.
        RuntimeError: when it does not compile.
    """
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc)
    sources = [csrc / f"{mutant.kernel}.cuh", csrc / "elements.cuh"]
    counts = [source.read_text().count(mutant.old) for source in sources]
    if sum(counts) != 1:
        raise ValueError(f"{mutant.old!r} must be in {mutant.kernel}'s sources once, not {sum(counts)} times")
    source = sources[counts.index(1)]
    source.write_text(source.read_text().replace(mutant.old, mutant.new))
    return build(csrc, cache=folder / "cache", kernels=(mutant.kernel,), **options)


def try_mutant(mutant: Mutant) -> Caught:
    """Run the kernel's check on the mutant, in a process that may crash; see `build_mutant`."""
    with tempfile.TemporaryDirectory() as folder:
        library = build_mutant(mutant, Path(folder), flags=("-O1", "-w"))
        command = [sys.executable, "-m", "tests.kernels.checks", str(library), mutant.kernel]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            return Caught(True, "does not end")
    lines = (result.stderr or result.stdout).strip().splitlines()
    return Caught(result.returncode != 0, lines[-1] if lines else f"exit status {result.returncode}")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]] or range(len(MUTANTS))
    for number in numbers:
        caught = try_mutant(MUTANTS[number])
        verdict = "flagged" if caught.flagged else "MISSED"
        print(f"{number:2} {verdict} {MUTANTS[number].what}: {caught.words}", flush=True)
