"""What nvcc makes of the kernels, for every architecture that is shipped: registers and machine code."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from pyrf.kernels.instances import E4M3, ELEMENTS, KERNELS, RING_QUERIES, SIZES, Instance
from pyrf.kernels.nvcc import FLAGS, SOURCES, STRICT, compile_kernel, find_nvcc
from pyrf.reports.kernels import Resources, parse_report
from tests.kernels import ptx_ops
from tests.kernels.sass import disassemble, find_cuobjdump

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc, which is not here")

ARCHS = ("80", "90a", "100")
E4M3_ARCHS = ("89", "90a", "100", "120")
"""Of the products of e4m3. For sm_120 the driver makes the code, from the PTX of sm_100."""
WITH_E4M3 = {"89": "QMMA", "90a": "HMMA", "100": "HMMA", "120": "QMMA"}
"""What ptxas makes of such a product: on some architectures two of float16."""
NARROW_LOADS = {"ema_sink_update": 5, "norm_rope_append": 1}
"""Loads of less than 16 bytes that a kernel may hold: the slot's index (8 bytes), and in the sink update the
four turns of a thread (8 bytes each), from a table of a few hundred bytes that all threads share."""
EIGHT_OF_E4M3 = {"ema_sink_update": (1, 1), "norm_rope_append": (0, 2)}
"""Loads and stores of 8 bytes beside these where the cache is e4m3: eight channels of a token."""


def quantises(instance: Instance) -> bool:
    """Whether rows are scaled to e4m3: it stores eight channels of it (8 bytes), and the rows' scales (4)."""
    return instance.kernel == "quantise_rows" or (instance.kernel, instance.written) == ("add_norm", E4M3)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """The fat binary of each kernel for all architectures, and the report of ptxas."""
    folder = tmp_path_factory.mktemp("fatbin")
    return {
        kernel: (folder / kernel, compile_kernel(SOURCES / f"{kernel}.cu", folder / kernel, archs_of(kernel)))
        for kernel in KERNELS
    }


@pytest.fixture(scope="module")
def report(compiled: dict[str, tuple[Path, str]]) -> list[Resources]:
    return [found for _, text in compiled.values() for found in parse_report(text)]


@pytest.fixture(scope="module")
def code(compiled: dict[str, tuple[Path, str]]) -> dict[tuple[str, Instance], list[str]]:
    if find_cuobjdump() is None:
        pytest.skip("needs cuobjdump, which is not here: make dev on Linux brings it")
    return {
        (arch, Instance.of(name)): opcodes
        for binary, _ in compiled.values()
        for (arch, name), opcodes in disassemble(binary).items()
    }


def archs_of(kernel: str) -> tuple[str, ...]:
    return E4M3_ARCHS if kernel == "ring_attention_e4m3" else ARCHS


def everything() -> set[tuple[str, Instance]]:
    return {(f"sm_{arch}", each) for each in every_instance() for arch in archs_of(each.kernel)}


def every_instance() -> Iterable[Instance]:
    for kernel, sizes in SIZES.items():
        for dtype, size in product(ELEMENTS.values(), sizes):
            yield Instance(kernel, dtype, size)
            if kernel in ("add_norm", "norm_rope_append"):
                yield Instance(kernel, dtype, size, written=E4M3)
    for head_dim in SIZES["ema_sink_update"]:
        yield Instance("ema_sink_update", E4M3, head_dim)


def test_every_instance_is_compiled_for_every_architecture(report: list[Resources]) -> None:
    assert {(each.arch, each.instance) for each in report} == everything()


def test_no_kernel_spills(report: list[Resources]) -> None:
    assert [each for each in report if each.spills or each.stack] == []


def test_every_kernel_can_run(report: list[Resources]) -> None:
    """A block of the widest model fits the registers and the shared memory of every architecture."""
    for each in report:
        threads, dynamic = each.instance.block(heads=5120 // each.instance.size)
        assert threads * each.registers <= 65536, each
        assert each.shared + dynamic <= 99 * 1024, each  # the least of a block since sm_80: sm_86


def test_the_build_uses_the_same_flags() -> None:
    """CMake's options, so that what is checked here is what is shipped."""
    text = (SOURCES.parent / "CMakeLists.txt").read_text()
    match = re.search(r"COMPILE_LANGUAGE:CUDA>:([^>]*)>", text)
    assert match
    assert "80-real" in text
    assert '"80-real" "89-real"' in text  # of the products of e4m3
    options = set(match[1].replace(",", " ").split()) - {"-Xptxas"}
    # A user's build only warns: another version of the compiler may spill.
    assert options == set(FLAGS) - {"-std=c++17", "-O3"} | set(STRICT) - {"-Werror"}
    assert all(f"{arch}-real" in text for arch in ARCHS)


def test_a_kernel_that_spills_is_reported_and_refused(tmp_path: Path) -> None:
    source = tmp_path / "spill.cu"
    source.write_text("""
      namespace pyrf {
      struct Bf16 {};
      template <class T, int kHeadDim>
      __global__ void __launch_bounds__(1024, 2) spill_kernel(float* x) {
        float v[kHeadDim];
      #pragma unroll
        for (int i = 0; i < kHeadDim; ++i) v[i] = x[threadIdx.x * kHeadDim + i];
        __syncthreads();
      #pragma unroll
        for (int i = 0; i < kHeadDim; ++i) x[(threadIdx.x + i) * kHeadDim] = v[i] * v[kHeadDim - 1 - i];
      }
      template __global__ void spill_kernel<Bf16, 64>(float*);
      }
    """)
    (found,) = parse_report(compile_kernel(source, tmp_path / "spill", ["90a"]))
    assert found.instance == Instance("spill", "bfloat16", 64)
    assert found.spills > 0
    assert found.stack > 0
    with pytest.raises(RuntimeError, match="spilled to local memory"):
        compile_kernel(source, tmp_path / "spill", ["90a"], strict=True)


def rows_of_a_lane(instance: Instance) -> int:
    return {128: 4, 256: 4, 512: 2}.get(instance.size, 1) if instance.kernel == "add_norm" else 1


def matching(opcodes: list[str], pattern: str) -> list[str]:
    return [opcode for opcode in opcodes if re.match(pattern, opcode)]


def test_no_machine_code_uses_local_memory_or_float64(code: dict[tuple[str, Instance], list[str]]) -> None:
    for key, opcodes in code.items():
        assert not matching(opcodes, r"(LDL|STL)\b"), key
        assert not matching(opcodes, r"D(ADD|MUL|FMA)\b"), key


def test_global_memory_is_accessed_16_bytes_at_a_time(code: dict[tuple[str, Instance], list[str]]) -> None:
    for key, opcodes in code.items():
        instance = key[1]
        # `LDG\.` and not `LDG`, which LDGSTS (a copy to shared memory) would match too.
        loads, stores = matching(opcodes, r"LDG\."), matching(opcodes, r"STG\.")
        copies = matching(opcodes, r"LDGSTS\.")
        is_e4m3 = E4M3 in (instance.dtype, instance.written)
        more_loads, narrow_stores = EIGHT_OF_E4M3.get(instance.kernel, (0, 0)) if is_e4m3 else (0, 0)
        narrow = [opcode for opcode in loads if not opcode.endswith(".128")]
        assert len(narrow) <= NARROW_LOADS.get(instance.kernel, 0) + more_loads, key
        assert all(opcode.endswith(".64") for opcode in narrow), key
        assert stores, key
        narrow = [opcode for opcode in stores if not opcode.endswith(".128")]
        if quantises(instance):
            scales = [opcode for opcode in narrow if not opcode.endswith(".64")]
            assert len(scales) == rows_of_a_lane(instance), key
            assert not any(opcode.endswith((".U8", ".U16", ".S8", ".S16")) for opcode in scales), key
            narrow = [opcode for opcode in narrow if opcode.endswith(".64")]
            assert narrow, key
        elif instance.kernel == "ring_attention_e4m3":  # the four lanes of a row store 32 bytes
            assert narrow == stores, key
        else:
            assert len(narrow) == narrow_stores < len(stores), key
        assert all(opcode.endswith(".64") for opcode in narrow), key
        assert all(opcode.endswith(".128") for opcode in copies), key
        assert not matching(opcodes, r"(LD|ST|ATOM|ATOMG|RED)\."), key  # neither generic nor atomic
        assert any(opcode.endswith(".128") for opcode in [*loads, *copies]), key


def test_attention_runs_on_tensor_cores(code: dict[tuple[str, Instance], list[str]]) -> None:
    for key, opcodes in code.items():
        instance = key[1]
        if instance.kernel != "ring_attention":
            continue
        products, matrices = matching(opcodes, r"HMMA\."), matching(opcodes, r"LDSM\.")
        suffix = ".F32.BF16" if instance.dtype == "bfloat16" else ".F32"
        assert products, key
        assert all(opcode == f"HMMA.16816{suffix}" for opcode in products), key
        assert matrices, key
        assert all(opcode.endswith(".4") for opcode in matrices), key
        assert any(".MT88" in opcode for opcode in matrices), key  # of the values, transposed
        assert matching(opcodes, r"LDGSTS\."), key
        assert not matching(opcodes, r"LDG\."), key


def test_attention_in_e4m3_runs_on_tensor_cores(code: dict[tuple[str, Instance], list[str]]) -> None:
    """Natively where there are such products; with every matrix by ldmatrix, and rounding by instructions."""
    for key, opcodes in code.items():
        arch, instance = key
        if instance.kernel != "ring_attention_e4m3":
            continue
        native = WITH_E4M3[arch.removeprefix("sm_")] == "QMMA"
        expected = "QMMA.16832.F32.E4M3.E4M3" if native else "HMMA.16816.F32"
        products, matrices = matching(opcodes, r"[A-Z]*MMA\."), matching(opcodes, r"LDSM\.")
        assert products, key
        assert set(products) == {expected}, key
        assert all(opcode.endswith(".4") for opcode in matrices), key
        assert any(".MT88" in opcode for opcode in matrices), key
        assert any("SATFINITE.E4M3" in opcode for opcode in opcodes), key
        assert matching(opcodes, r"PRMT"), key
        assert matching(opcodes, r"LDGSTS\."), key


def test_the_machine_code_has_every_kernel(code: dict[tuple[str, Instance], list[str]]) -> None:
    assert set(code) == everything()


def test_python_knows_the_structs_and_blocks_of_the_headers(tmp_path: Path) -> None:
    """The compiler compares what Python assumes of csrc with what it finds there."""
    claims = []
    for struct in (
        ptx_ops.AddNormParams,
        ptx_ops.EmaSinkParams,
        ptx_ops.NormRopeParams,
        ptx_ops.QuantiseRowsParams,
        ptx_ops.RingAttentionParams,
    ):
        name = f"pyrf::{struct.__name__}"
        claims.append(f"sizeof({name}) == {ctypes.sizeof(struct)}")
        for field, *_ in struct._fields_:
            claims.append(f"offsetof({name}, {field}) == {getattr(struct, field).offset}")
    claims.append(f"pyrf::kAddNormThreads == {Instance('add_norm', 'bfloat16', 128).block(1)[0]}")
    claims += [
        f"pyrf::AddNormTile<{size}>::kBlockRows == {rows}" for size, rows in ptx_ops.ADD_NORM_ROWS.items()
    ]
    claims.append(f"pyrf::kEmaThreads == {Instance('ema_sink_update', 'bfloat16', 64).block(1)[0]}")
    claims.append(f"pyrf::kEmaThreads == {ptx_ops.EMA_THREADS}")
    claims.append(f"pyrf::kNormSharedBytes == {Instance('norm_rope_append', 'bfloat16', 64).block(1)[1]}")
    threads, shared = Instance("quantise_rows", "bfloat16", 2048).block(1)
    claims += [f"pyrf::kQuantiseThreads == {threads}", f"pyrf::kQuantiseSharedBytes == {shared}"]
    for head_dim in (64, 128):
        for kernel, element in (("ring_attention", "Bf16"), ("ring_attention_e4m3", "E4m3")):
            threads, shared = Instance(kernel, "bfloat16", head_dim).block(1)
            tile = f"pyrf::RingTile<pyrf::{element}, {head_dim}>"
            claims.append(f"{tile}::kThreads == {threads}")
            claims.append(f"{tile}::kSharedBytes == {shared}")
            claims.append(f"{tile}::kQueries == {RING_QUERIES}")
    for head_dim in (32, 64, 96, 128, 256):
        scale = ctypes.c_float(math.log2(math.e) / math.sqrt(head_dim)).value
        claims.append(f"pyrf::scale_log2({head_dim}) == {scale.hex()}f")
    source = tmp_path / "claims.cu"
    headers = "".join(f'#include "{SOURCES}/{kernel}.cuh"\n' for kernel in KERNELS)
    asserts = "".join(f'static_assert({claim}, "{claim}");\n' for claim in claims)
    source.write_text(f"#include <cstddef>\n{headers}{asserts}")
    compile_kernel(source, tmp_path / "claims", ["90a"], ptx=True)
