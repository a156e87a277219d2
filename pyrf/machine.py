"""The machine: what a process may use of it, what measurements say of it, and how they sum up a sample."""

from __future__ import annotations

import math
import os
import platform
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")


def available_cpus(proc: Path = Path("/proc/self/cgroup"), cgroups: Path = CGROUPS) -> int:
    """CPUs that this process may use: its affinity, and a container's quota of CPU time, rounded up.

    Args:
        proc: names the control groups of the process.
        cgroups: where those of version 1 and 2 are mounted.
    """
    return max(1, min([affinity(), *(math.ceil(quota) for quota in _cpu_quotas(proc, cgroups))]))


def affinity() -> int:
    """CPUs that the system lets this process run on, whatever the time it gets there."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_quotas(proc: Path, cgroups: Path) -> Iterator[float]:
    """The limits of CPU time, in CPUs, of the groups that the process is in, and of those above them."""
    for group, version in _groups(proc, cgroups, "cpu"):
        quota = _quota_v1(group) if version == 1 else _quota_v2(group)
        if quota is not None:
            yield quota


def _groups(proc: Path, cgroups: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of the groups that the process is in, and of those above them, each with its version."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (controller, controllers, ",".join(reversed(controllers.split(","))))
        for mount in dict.fromkeys(mounts) if controllers else ("", "unified"):
            group = PurePosixPath("/", path)
            # In a container the path may be that of the host: then only the mount itself is there.
            for part in (group, *group.parents):
                yield cgroups / mount / str(part).lstrip("/"), 1 if controllers else 2


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # not there, or "max"
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def rss_bytes() -> int:
    """Resident memory of this process now; its peak so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return round(peak_rss_mib() * 2**20)


def available_memory(
    meminfo: Path = Path("/proc/meminfo"), proc: Path = Path("/proc/self/cgroup"), cgroups: Path = CGROUPS
) -> int | None:
    """Bytes that this process may still take without swapping; None where the system does not tell.

    The least of what the machine has left, and of what the limits of a container's groups leave. Files that
    are cached count as free.
    """
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        left = [int(lines["MemAvailable"].split()[0]) * 2**10]
    except (OSError, ValueError, KeyError):
        return None
    return max(0, min(left + list(_memory_quotas(proc, cgroups))))


def _memory_quotas(proc: Path, cgroups: Path) -> Iterator[int]:
    """What the memory limits of the process's groups leave."""
    for group, version in _groups(proc, cgroups, "memory"):
        limit, used = ("memory.max", "memory.current")
        if version == 1:
            limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        try:
            taken = int((group / used).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield int((group / limit).read_text()) - taken + int(stat.get("inactive_file", 0))
        except (OSError, ValueError):  # not there, or "max"
            continue


def peak_rss_mib() -> float:
    """Peak resident memory of this process so far."""
    with suppress(OSError, ValueError, StopIteration):  # what getrusage tells may be that of its parent
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # ceil
    return ordered[max(0, int(rank) - 1)]
