"""What the compiler says of the kernels, read from its report."""

from pathlib import Path

import pytest

from pyrf.kernels.instances import Instance
from pyrf.kernels.nvcc import CompilerMissingError
from pyrf.reports import kernels
from pyrf.reports.kernels import parse_report

ENTRY = "_ZN4pyrf21ring_attention_kernelINS_4Bf16ELi128EEEvNS_19RingAttentionParamsE"
PTXAS = f"""
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{ENTRY}' for 'sm_90a'
ptxas info    : Function properties for {ENTRY}
    32 bytes stack frame, 56 bytes spill stores, 40 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 32 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Compiling entry function '{ENTRY.replace("Bf16", "Fp16")}' for 'sm_80'
ptxas info    : Function properties for {ENTRY.replace("Bf16", "Fp16")}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 472 bytes cmem[0]
"""


def test_the_report_of_ptxas_is_read() -> None:
    first, second = parse_report(PTXAS)
    assert first.instance == Instance("ring_attention", "bfloat16", 128)
    assert (first.arch, first.registers, first.shared) == ("sm_90a", 255, 1024)
    assert (first.stack, first.spills) == (32, 96)
    assert second.instance == Instance("ring_attention", "float16", 128)
    assert (second.arch, second.registers, second.shared, second.spills) == ("sm_80", 64, 0, 0)
    with pytest.raises(ValueError, match="is not the name of a kernel"):
        parse_report(PTXAS.replace("ring_attention_kernel", "ring_attention_helper"))


def test_without_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels, "SOURCES", tmp_path)
    with pytest.raises(CompilerMissingError, match="no sources"):
        kernels.resources()
