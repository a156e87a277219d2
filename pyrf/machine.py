"""The machine: what a process may use of it, what measurements say of it, and how they sum up a sample."""

from __future__ import annotations

import math
import os
import platform
import resource
import sys
from collections.abc import Iterator, Sequence
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
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        read = _quota_v1 if controllers else _quota_v2
        for mount in ("cpu", "cpu,cpuacct", "cpuacct,cpu") if controllers else ("", "unified"):
            group = PurePosixPath("/", path)
            # In a container the path may be that of the host: then only the mount itself is there.
            for part in (group, *group.parents):
                quota = read(cgroups / mount / str(part).lstrip("/"))
                if quota is not None:
                    yield quota


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


def peak_rss_mib() -> float:
    """Peak resident memory of this process so far."""
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
