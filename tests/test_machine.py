"""What measurements say of their machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrf.machine import available_memory, peak_rss_mib, percentile, processor, rss_bytes

MIB = 2**20
V1 = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n"
V2 = "0::/app/worker\n"
USED = {"memory.current": "300000000", "memory.stat": "anon 1\ninactive_file 100000000\n"}
USED_V1 = {"memory.usage_in_bytes": "300000000", "memory.stat": "inactive_file 50000000\n"}


def in_group(group: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{group}/{name}": text for name, text in files.items()}


def test_percentile() -> None:
    values = [float(value) for value in range(200, 0, -1)]
    assert percentile(values, 99) == 198
    assert percentile(values, 50) == 100
    assert percentile(values, 100) == 200
    assert percentile([7.0], 99) == 7


def test_the_machine() -> None:
    assert peak_rss_mib() > 5
    assert 5 * MIB < rss_bytes() <= peak_rss_mib() * MIB + MIB
    assert processor()


@pytest.mark.parametrize(
    ("proc", "files", "left"),
    [
        (V2, {}, 1000 * MIB),
        (V2, in_group("app/worker", USED | {"memory.max": "max"}), 1000 * MIB),
        (V2, in_group("app/worker", USED | {"memory.max": "500000000"}), 300_000_000),
        (V2, in_group("app", USED | {"memory.max": "250000000"}), 50_000_000),  # of the group above
        (V2, in_group("app/worker", USED | {"memory.max": "100000000"}), 0),
        (V2, in_group("app/worker", USED | {"memory.max": "9000000000"}), 1000 * MIB),
        (V2, in_group("app/worker", {"memory.max": "500000000"}), 1000 * MIB),  # what is used is not told
        (V1, in_group("memory/docker/abc", USED_V1 | {"memory.limit_in_bytes": "400000000"}), 150_000_000),
    ],
)
def test_available_memory(tmp_path: Path, proc: str, files: dict[str, str], left: int) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4096000 kB\nMemFree: 9 kB\nMemAvailable: 1024000 kB\n")
    (tmp_path / "proc").write_text(proc)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert available_memory(tmp_path / "meminfo", tmp_path / "proc", tmp_path / "groups") == left


def test_memory_of_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "meminfo", tmp_path / "proc", tmp_path / "groups") is None
