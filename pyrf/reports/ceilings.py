"""What a GPU can do at most: its peak rates, and how many threads a multiprocessor holds at a time."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SM:
    """Limits of a streaming multiprocessor. The defaults are compute capability 9.0 (H100).

    Attributes:
        register_unit: registers are given out to a warp in multiples of this.
        reserved_shared: bytes of shared memory the system takes of each block.
    """

    threads: int = 2048
    blocks: int = 32
    registers: int = 65536
    register_unit: int = 256
    shared: int = 228 * 1024
    reserved_shared: int = 1024

    def resident_blocks(self, threads: int, registers: int, shared: int) -> int:
        """Blocks of a kernel that one SM holds at a time.

        Args:
            threads: of a block, whole warps.
            registers: of a thread.
            shared: bytes of a block, static and dynamic.
        """
        warps = -(-threads // 32)
        warp_registers = -(-registers * 32 // self.register_unit) * self.register_unit
        by_registers = self.registers // warp_registers // warps
        by_shared = self.shared // (shared + self.reserved_shared)
        return min(self.blocks, self.threads // threads, by_registers, by_shared)

    def occupancy(self, threads: int, registers: int, shared: int) -> float:
        """Part of the SM's thread slots that are in use."""
        return self.resident_blocks(threads, registers, shared) * threads / self.threads


@dataclass(frozen=True)
class Ceiling:
    """Peak rates. The defaults are an H100 SXM: dense bfloat16, HBM3.

    Attributes:
        flops: floating-point operations per second.
        e4m3_flops: the same with products of e4m3.
        has_e4m3_mma: whether `mma.sync`, with which pyrf's kernels multiply, reaches that rate; where it does
            not, the compiler widens its operands to float16.
        bandwidth: bytes per second.
        wide_flops: floating-point operations per second in float32, without tensor cores.
        host_bandwidth: bytes per second from the CPU's memory (PCIe 5).
        link_bandwidth: bytes per second to other GPUs, in one direction (NVLink 4).
    """

    name: str = "H100"
    flops: float = 989e12
    bandwidth: float = 3.35e12
    wide_flops: float = 67e12
    host_bandwidth: float = 55e9
    link_bandwidth: float = 450e9
    sm: SM = field(default_factory=SM)
    e4m3_flops: float = 1979e12
    has_e4m3_mma: bool = False


E4M3_CEILINGS = (
    Ceiling("L40S, sm_89", 362e12, 0.864e12, e4m3_flops=733e12, has_e4m3_mma=True),
    Ceiling("H100, sm_90", 989e12, 3.35e12, e4m3_flops=1979e12),
    Ceiling("B200, sm_100", 2250e12, 8e12, e4m3_flops=4500e12),
    Ceiling("RTX 5090, sm_120", 209.5e12, 1.792e12, e4m3_flops=419e12, has_e4m3_mma=True),
)
"""One GPU for each architecture with products of e4m3; the rates are those of NVIDIA's data sheets: dense,
summed in float32."""
