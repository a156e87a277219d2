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

SHARED = ("elements.cuh", "e4m3.h", "row_scale.cuh", "ring_block.cuh")


class Mutant(NamedTuple):
    """A fault: in a kernel's device code, or in what it shares with others, `old` becomes `new`."""

    kernel: str
    old: str
    new: str
    what: str


ADD, EMA, NORM, ROWS, RING, RING_E4M3 = KERNELS
MUTANTS = (
    Mutant(
        ADD, "row(r) < params.rows ? params.vectors : 0", "params.vectors", "rows past the last are touched"
    ),
    Mutant(ADD, "vector(v) < vectors[r]", "vectors[r] > 0", "channels past a row's last are touched"),
    Mutant(ADD, "&& vector < params.vectors", "", "parameters are read past their end"),
    Mutant(ADD, "r * Tile::kGroups;", "0;", "one row for all of a lane"),
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
        ADD, "row_largest<Tile::kLanes>(largest)", "largest", "lanes scale by what is largest among theirs"
    ),
    Mutant(
        ADD, "largest_size(words[r][v])", "largest_size(words[0][v])", "one row's largest for all of a lane"
    ),
    Mutant(ADD, "rows.first == 0 && rows.holds(r, 0)", "rows.first == 0", "scales past the last row"),
    Mutant(
        ADD, "params.scales + rows.row(r)", "params.scales + rows.row(0)", "one scale for all rows of a lane"
    ),
    Mutant(ADD, "if (rows.holds(r, v)) ptx::store8", "ptx::store8", "e4m3 past a row's last channel"),
    Mutant(ADD, "step < kLanes", "step < 16", "half of a row's lanes are not compared"),
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
    Mutant(EMA, "size + 0x7ffff + (size >> 20 & 1)", "size + 0x80000", "ties to e4m3 go up"),
    Mutant(EMA, "size >= kLargest", "size >= kInfinity", "what is too large for e4m3 stays so"),
    Mutant(EMA, "kRounder = 16384.0f", "kRounder = 8192.0f", "small e4m3 numbers have a bit too many"),
    Mutant(EMA, "(byte & 0x80) << 24", "0", "e4m3 is read without its sign"),
    Mutant(EMA, "0x1p120f", "0x1p119f", "e4m3 is read as half of what it is"),
    Mutant(EMA, "(i < 4 ? words.x : words.y)", "words.x", "four bytes are read twice"),
    Mutant(NORM, "ptx::pack_e4m3(x[2], x[3]) << 16,", "ptx::pack_e4m3(x[2], x[3]) << 8,", "bytes overlap"),
    Mutant(
        NORM,
        "at<Cache>(params.values, params.values_strides",
        "at<Cache>(params.keys, params.values_strides",
        "values are written among the keys",
    ),
    Mutant(
        NORM,
        "  ptx::sync_threads();\n  const bool",
        "  const bool",
        "no barrier before the warps' sums are read",
    ),
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
    Mutant(ROWS, "vector < params.vectors ?", "true ?", "channels past a row's last are read"),
    Mutant(
        ROWS, "    if (vector >= params.vectors) continue;\n", "", "channels past a row's last are written"
    ),
    Mutant(
        ROWS,
        "  ptx::sync_threads();\n  return row_largest",
        "  return row_largest",
        "no barrier before the warps' largest are read",
    ),
    Mutant(ROWS, "if (lane == 0) ptx", "if (warp == 0) ptx", "only one warp leaves its largest"),
    Mutant(
        ROWS, "kQuantiseWarps * sizeof(uint32_t);", "sizeof(uint32_t);", "shared memory for one warp of eight"
    ),
    Mutant(ROWS, "row_largest<kQuantiseWarps>", "row_largest<4>", "half of the warps are not compared"),
    Mutant(ROWS, "word[i] >> 16 & 0x7fff", "0u", "every second number is not compared"),
    Mutant(ROWS, "larger(word[i] & 0x7fff", "larger(word[i] & 0xffff", "negative numbers are the largest"),
    Mutant(ROWS, "i < 4; ++i) largest", "i < 3; ++i) largest", "two numbers of eight are not compared"),
    Mutant(ROWS, "(size < kLeast ? kLeast : size)", "size", "a row of zeros is divided by zero"),
    Mutant(
        ROWS, "(size < kLeast ? kLeast : size)", "(size > kLeast ? size : kLeast)", "NaN is taken for zero"
    ),
    Mutant(ROWS, "1.0 / 448.0", "1.0 / 480.0", "the largest number becomes more than e4m3 holds"),
    Mutant(ROWS, "x[i] *= inverse", "x[i] *= scale", "rows are multiplied by what undoes it"),
    Mutant(ROWS, "if (params.gelu)", "if (!params.gelu)", "GELU where none is asked for"),
    Mutant(ROWS, "kCubic * x, x, kLinear", "kCubic, x, kLinear", "a square in place of a cube"),
    Mutant(ROWS, "return x * ptx::reciprocal", "return ptx::reciprocal", "the gate alone"),
    Mutant(ROWS, "if (threadIdx.x == 0) ptx", "if (threadIdx.x == 300) ptx", "no scale is stored"),
    Mutant(ROWS, "params.scales + blockIdx.x", "params.scales", "one scale for all rows"),
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
        "    ptx::sync_warp();\n    constexpr int kStep",
        "    constexpr int kStep",
        "lanes read rows that others have not written",
    ),
    Mutant(RING, "(chunk ^ turn)", "chunk", "no swizzle"),
    Mutant(RING, "if (valid < Tile::kKeys) state.mask", "if (false) state.mask", "no mask on the tail"),
    Mutant(RING, "column + i % 2 < valid", "column + i % 2 <= valid", "one key too many"),
    Mutant(RING, "load_matrices_transposed(v", "load_matrices(v", "values are not transposed"),
    Mutant(RING, "q[m], k[0], k[1]", "q[m], k[0], k[2]", "operands of a product are mixed up"),
    Mutant(RING, "w[m][1] = ptx::pack<T>(left[2]", "w[m][2] = ptx::pack<T>(left[2]", "fragment order"),
    Mutant(RING, "multiply_add<T>(out[m][2 * d], w", "multiply_add<Fp16>(out[m][2 * d], w", "fp16 for bf16"),
    Mutant(RING, "out[m][d][2 * row] *= shrink", "out[m][d][2 * row] *= 1", "old output is not rescaled"),
    Mutant(RING, "sum[m][row] *= shrink", "sum[m][row] *= 1", "the old sum is not rescaled"),
    Mutant(RING, "shuffle_xor(peak, 2)", "shuffle_xor(peak, 1)", "a row's lanes disagree on its peak"),
    Mutant(
        RING,
        "if (query >= params.queries - first_query) continue;",
        "",
        "rows past the last query are written",
    ),
    Mutant(RING, "first + i < valid", "true", "rows past the last are read"),
    Mutant(RING, "kQueryBytes + 4 * kKeyBytes", "kQueryBytes + 3 * kKeyBytes", "shared memory is short"),
    Mutant(RING_E4M3, "kEven = 0x6420", "kEven = 0x7531", "odd channels in place of even ones"),
    Mutant(RING_E4M3, "kOdd = 0x7531", "kOdd = 0x7513", "two keys of four are exchanged"),
    Mutant(RING_E4M3, "ptx::permute(v[2], v[3], kOdd)", "ptx::permute(v[0], v[1], kOdd)", "16 keys twice"),
    Mutant(RING_E4M3, "i / 2 * 2 + 1]", "i / 2 * 2]", "a column's weights are used twice"),
    Mutant(RING_E4M3, "row = i % 2 * 2;", "row = 0;", "8 rows' weights are used twice"),
    Mutant(RING_E4M3, "? 8.0f", "? 12.0f", "weights are beyond e4m3's largest number"),
    Mutant(RING_E4M3, "first + row < params.queries", "true", "rows past the last query are read"),
    Mutant(
        RING_E4M3,
        "if (query >= params.queries - first_query) continue;",
        "",
        "rows past the last query are written",
    ),
    Mutant(
        RING_E4M3, "(2 * chunk + half) * kVector", "2 * chunk * kVector", "8 channels of q are used twice"
    ),
    Mutant(RING_E4M3, "load_matrices_transposed(v", "load_matrices(v", "values are not transposed"),
    Mutant(
        RING_E4M3, "kChunks == 4 ? row / 2 % 4", "kChunks == 4 ? row % 4", "the swizzle meets its own banks"
    ),
    Mutant(RING_E4M3, "even[0] * scale, odd[0] * scale", "even[0] * scale, even[1] * scale", "channel order"),
    Mutant(RING_E4M3, "total(m, half)", "total(m, 0)", "8 rows are divided by the sums of others"),
    Mutant(RING_E4M3, "odd[0], odd[1]", "odd[1], odd[0]", "operands of a product are mixed up"),
    Mutant(
        RING_E4M3, "right(v_row, d), 2 * n", "right(v_row, d), n", "the second 32 keys begin 16 too early"
    ),
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
    sources = [csrc / name for name in (f"{mutant.kernel}.cuh", *SHARED)]
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
