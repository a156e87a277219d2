"""The PTX interpreter itself, on hand-written PTX: what instructions mean, and what it refuses."""

import struct

import numpy as np
import pytest

from tests.kernels.ptx import GlobalMemory, PtxError, launch, parse

ENTRY = """
.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.visible .entry kernel(.param .u64 kernel_param_0, .param .u32 kernel_param_1)
.maxntid 64, 1, 1
{{
  .reg .pred %p<9>;
  .reg .b16 %h<9>;
  .reg .b32 %r<40>;
  .reg .f32 %f<9>;
  .reg .b64 %d<9>;
  ld.param.u64 %d1, [kernel_param_0];
  ld.param.u32 %r1, [kernel_param_1];
  mov.u32 %r2, %tid.x;
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mad.lo.s32 %r5, %r3, %r4, %r2;   // index in the grid
  mul.wide.u32 %d2, %r5, 4;
  add.s64 %d3, %d1, %d2;           // this thread's word
{body}
  ret;
}}
"""


def run(
    body: str, value: int = 0, words: int = 32, threads: int = 32, blocks: int = 1, shared: int = 0
) -> np.ndarray:
    """Run a body; returns the words of global memory, which start as 0, 1, 2 ..."""
    memory = GlobalMemory()
    address = memory.place(np.arange(words, dtype=np.uint32))
    kernel = parse(ENTRY.format(body=body))["kernel"]
    parameters = struct.pack("<QI", address, value)
    launch(kernel, (blocks, 1, 1), (threads, 1, 1), parameters, memory, shared)
    return memory.fetch(address)


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


ONE, HALF = f"0f{bits(1):08X}", f"0f{bits(0.5):08X}"

RESULTS = [
    ("sub.s32 %r6, 3, 5; mul.lo.s32 %r6, %r6, 7;", -14),
    ("mul.hi.u32 %r6, 0x80000000, 6;", 3),
    ("mul.hi.s32 %r6, -1, 6;", -1),
    ("mul.wide.s32 %d4, -3, 5; shr.s64 %d4, %d4, 1; cvt.u32.u64 %r6, %d4;", -8),
    ("mov.u32 %r7, -7; div.s32 %r6, %r7, 2;", -3),
    ("mov.u32 %r7, -7; rem.s32 %r6, %r7, 4;", -3),
    ("mov.u32 %r7, -1; div.u32 %r6, %r7, 2;", 0x7FFFFFFF),
    ("mov.u32 %r7, 1; shl.b32 %r6, %r7, 32;", 0),
    ("mov.u32 %r7, -8; shr.s32 %r6, %r7, 40;", -1),
    ("mov.u32 %r7, -8; shr.u32 %r6, %r7, 28;", 15),
    ("mov.u32 %r7, 0xAB; bfi.b32 %r6, %r7, 0x11111111, 8, 8;", 0x1111AB11),
    ("mov.u32 %r7, 0x33221100; mov.u32 %r8, 0x77665584; prmt.b32 %r6, %r7, %r8, 0x5C30;", 0x55FF3300),
    ("setp.lt.s32 %p1, -1, 1; selp.b32 %r6, 4, 5, %p1;", 4),
    ("setp.lt.u32 %p1, -1, 1; selp.b32 %r6, 4, 5, %p1;", 5),
    ("setp.eq.s32 %p1, 1, 1; setp.gt.and.s32 %p2, 1, 2, %p1; @!%p2 mov.u32 %r6, 9;", 9),
    ("{ .reg .b16 a, b; mov.b32 {a, b}, 0x12345678; mov.b32 %r6, {b, a}; }", 0x56781234),
    ("mov.u32 %r7, 0xFFFF8001; cvt.s32.s16 %r6, %r7;", -32767),
    ("cvt.rni.s32.f32 %r6, 0fC0200000;", -2),  # -2.5, ties to even
    ("cvt.rzi.s32.f32 %r6, 0f7F800000;", 0x7FFFFFFF),  # infinity saturates
    (f"fma.rn.f32 %f1, {HALF}, {HALF}, {ONE}; mov.b32 %r6, %f1;", bits(1.25)),
    (f"mul.f32 %f1, {HALF}, {HALF}; ex2.approx.ftz.f32 %f2, %f1; mov.b32 %r6, %f2;", bits(2**0.25)),
    (f"rsqrt.approx.f32 %f1, 0f40800000; sub.f32 %f2, %f1, {HALF}; mov.b32 %r6, %f2;", 0),
    (f"max.f32 %f1, 0f7FFFFFFF, {ONE}; mov.b32 %r6, %f1;", bits(1)),  # a NaN loses
    (f"cvt.rn.bf16x2.f32 %r6, {HALF}, {ONE};", 0x3F003F80),
    (f"cvt.rn.f16x2.f32 %r6, {HALF}, {ONE};", 0x38003C00),
    ("cvt.rn.bf16x2.f32 %r6, 0f3F808000, 0f3F818000;", 0x3F803F82),  # ties to even
    (f"cvt.rn.satfinite.e4m3x2.f32 %h1, {HALF}, {ONE}; cvt.u32.u16 %r6, %h1;", 0x3038),
    (
        "cvt.rn.satfinite.e4m3x2.f32 %h1, 0f3F880000, 0f3F980000; cvt.u32.u16 %r6, %h1;",
        0x383A,
    ),  # ties to even
    ("cvt.rn.satfinite.e4m3x2.f32 %h1, 0fFF800000, 0f7FC00000; cvt.u32.u16 %r6, %h1;", 0xFE7F),
    ("mov.b32 %r7, 0x3C00; cvt.u16.u32 %h1, %r7; cvt.f32.f16 %f1, %h1; mov.b32 %r6, %f1;", bits(1)),
    ("mov.u32 %r6, 0;\n$loop: add.s32 %r6, %r6, 3; setp.lt.s32 %p1, %r6, 20; @%p1 bra $loop;", 21),
]


@pytest.mark.parametrize(("code", "expected"), RESULTS)
def test_results(code: str, expected: int) -> None:
    got = run(f"{code} st.global.u32 [%d3], %r6;")
    assert (got == np.uint32(expected % 2**32)).all()


def test_threads_part_and_meet_again() -> None:
    """Odd threads loop as often as their index; all of them take part in the shuffle after it."""
    body = """
      mov.u32 %r6, 0; and.b32 %r7, %r2, 1; setp.eq.s32 %p1, %r7, 0; @%p1 bra $meet;
    $loop:
      add.s32 %r6, %r6, 1; setp.lt.u32 %p2, %r6, %r2; @%p2 bra $loop;
    $meet:
      shfl.sync.bfly.b32 %r8, %r6, 1, 31, -1; st.global.u32 [%d3], %r8;"""
    expected = [thread + 1 if thread % 2 == 0 else 0 for thread in range(32)]
    assert run(body).tolist() == expected


def test_blocks_share_nothing() -> None:
    """Every block turns its own words round, through shared memory and a barrier."""
    body = """
      mov.u32 %r6, dynamic; shl.b32 %r7, %r2, 2; add.s32 %r6, %r6, %r7; st.shared.u32 [%r6], %r5;
      bar.sync 0; mov.u32 %r9, dynamic; sub.s32 %r8, 252, %r7; add.s32 %r8, %r9, %r8;
      ld.shared.u32 %r10, [%r8]; st.global.u32 [%d3], %r10;"""
    got = run(body, words=256, threads=64, blocks=4, shared=256)
    assert (got.reshape(4, 64) == np.arange(256).reshape(4, 64)[:, ::-1]).all()


COPY = """
  mov.u32 %r6, dynamic; shl.b32 %r7, %r2, 4; add.s32 %r6, %r6, %r7; mul.wide.u32 %d4, %r2, 16;
  add.s64 %d4, %d1, %d4; cp.async.cg.shared.global.L2::128B [%r6], [%d4], 16, {size}; {after}
  ld.shared.u32 %r8, [%r6]; bar.sync 0; st.global.u32 [%d3], %r8;"""


def test_a_copy_lands_when_it_is_waited_for() -> None:
    commit, poison = "cp.async.commit_group;", 0xFFFFFFFF
    for after, expected in (
        ("", poison),
        ("cp.async.wait_group 0;", poison),  # not committed: not waited for
        (f"{commit} cp.async.wait_group 1;", poison),
        (f"{commit} cp.async.wait_group 0;", None),
        (f"{commit} {commit} cp.async.wait_group 1;", None),
        ("cp.async.wait_all;", None),
    ):
        got = run(COPY.format(size=16, after=after), words=128, shared=512)
        wanted = 4 * np.arange(32) if expected is None else np.full(32, expected)
        assert (got[:32] == wanted).all(), after


def test_an_empty_copy_fills_zeros() -> None:
    after = "cp.async.wait_all;"
    assert not run(COPY.format(size=0, after=after), words=128, shared=512)[:32].any()


def matrix(warps: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((warps, 16, 16)).astype(np.float16)


@pytest.mark.parametrize("transposed", [False, True])
def test_mma_of_matrices_loaded_by_ldmatrix(transposed: bool) -> None:
    """D = A B for 16 x 16 by 16 x 8, the fragments loaded as attention loads them."""
    a, b = matrix(1, 0)[0], matrix(1, 1)[0][:, :8]
    memory = GlobalMemory()
    stored = b if transposed else b.T  # .trans turns rows of B; without it, columns are stored as rows
    source = memory.place(np.concatenate((a.ravel(), np.ascontiguousarray(stored).ravel())))
    target = memory.place(np.zeros((16, 8), np.float32))
    row_of_b = "and.b32 %r12, %r2, 15; shl.b32 %r12, %r12, 4;"
    if not transposed:
        row_of_b = """and.b32 %r12, %r2, 7; shl.b32 %r12, %r12, 5; shr.u32 %r13, %r2, 3;
          and.b32 %r13, %r13, 1; shl.b32 %r13, %r13, 4; add.s32 %r12, %r12, %r13;"""
    suffix = ".trans" if transposed else ""
    body = f"""
      ld.global.u64 %d4, [%d1]; ld.global.u64 %d5, [%d1+8];
      mul.wide.u32 %d6, %r2, 16; add.s64 %d6, %d4, %d6; shl.b32 %r6, %r2, 4; mov.u32 %r7, dynamic;
      add.s32 %r6, %r6, %r7;
      ld.global.v4.u32 {{%r8, %r9, %r10, %r11}}, [%d6]; st.shared.v4.u32 [%r6], {{%r8, %r9, %r10, %r11}};
      setp.lt.u32 %p1, %r2, 16;
      @%p1 ld.global.v4.u32 {{%r8, %r9, %r10, %r11}}, [%d6+512];
      @%p1 st.shared.v4.u32 [%r6+512], {{%r8, %r9, %r10, %r11}};
      bar.sync 0;
      and.b32 %r14, %r2, 15; shl.b32 %r14, %r14, 5; shr.u32 %r15, %r2, 4; shl.b32 %r15, %r15, 4;
      add.s32 %r14, %r14, %r15; add.s32 %r14, %r14, %r7; {row_of_b} add.s32 %r12, %r12, %r7;
      ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r20, %r21, %r22, %r23}}, [%r14];
      ldmatrix.sync.aligned.m8n8.x2{suffix}.shared.b16 {{%r24, %r25}}, [%r12+512];
      mov.f32 %f1, 0f00000000;
      mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
        {{%f2, %f3, %f4, %f5}}, {{%r20, %r21, %r22, %r23}}, {{%r24, %r25}}, {{%f1, %f1, %f1, %f1}};
      shl.b32 %r26, %r2, 3; cvt.u64.u32 %d7, %r26; add.s64 %d7, %d5, %d7;
      st.global.v2.f32 [%d7], {{%f2, %f3}}; st.global.v2.f32 [%d7+256], {{%f4, %f5}};"""
    pointers = memory.place(np.array([source, target], np.int64))
    parameters = struct.pack("<QI", pointers, 0)
    kernel = parse(ENTRY.format(body=body))["kernel"]
    launch(kernel, (1, 1, 1), (32, 1, 1), parameters, memory, 1024)
    expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    assert (memory.fetch(target) == expected).all()


SHUFFLE = "shfl.sync.bfly.b32 %r6, %r6, 1, 31, -1;"
REFUSED = [
    ("wgmma.fence.sync.aligned;", "unknown instruction: wgmma.fence"),
    ("cvt.rn.satfinite.bf16x2.f32 %r6, %f1, %f1;", "saturate to e4m3 alone"),
    ("add.sat.s32 %r6, %r6, 1;", "unknown instruction: add.sat"),
    ("ld.global.u32 %r6, [%d3+128];", "outside every array"),
    ("ld.global.u64 %d4, [%d3];", "misaligned global access of 8 bytes"),
    ("mov.u32 %r6, dynamic; st.shared.u32 [%r6+16], %r6;", "outside the block's 16"),
    ("setp.eq.s32 %p1, %r2, 3; @%p1 bra $out; bar.sync 0;\n$out:", "31 of a block's 32 threads"),
    ("setp.eq.s32 %p1, %r2, 3; @%p1 ret; bar.sync 0;", "31 of a block's 32 threads"),
    (
        "setp.eq.s32 %p1, %r2, 3; @%p1 bra $out; shfl.sync.bfly.b32 %r6, %r6, 1, 31, -1;\n$out:",
        "a part of it",
    ),
    ("setp.eq.s32 %p1, %r2, 3; @%p1 bar.warp.sync -1;", "a part of it"),
    ("div.s32 %r6, %r2, 0;", "divided by zero"),
    (".local .b8 spilled[16];", "unknown declaration"),
]


@pytest.mark.parametrize(("body", "message"), REFUSED)
def test_refuses(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        run(body, shared=16)


def test_refuses_a_launch_that_does_not_fit() -> None:
    kernel = parse(ENTRY.format(body=""))["kernel"]
    with pytest.raises(PtxError, match="at most 64 threads, got 96"):
        launch(kernel, (1, 1, 1), (96, 1, 1), bytes(12), GlobalMemory())
    with pytest.raises(PtxError, match="12 bytes of parameters, got 16"):
        launch(kernel, (1, 1, 1), (32, 1, 1), bytes(16), GlobalMemory())
