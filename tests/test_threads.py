"""CPUs that a process may use, by affinity and by control groups of both versions; and torch's threads."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from pyrf import machine, threads
from pyrf.commands.options import use_threads


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


V2 = "0::/app/worker\n"
V1 = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("proc", "files", "cpus"),
    [
        ("", {}, 8),
        (V2, {"app/worker/cpu.max": "max 100000\n"}, 8),
        (V2, {"app/worker/cpu.max": "200000 100000\n"}, 2),
        (V2, {"app/worker/cpu.max": "150000 100000\n"}, 2),
        (V2, {"app/worker/cpu.max": "10000 100000\n"}, 1),
        (V2, {"app/worker/cpu.max": "max 100000\n", "app/cpu.max": "300000 100000\n"}, 3),
        (V2, {"app/worker/cpu.max": "400000 100000\n", "app/cpu.max": "300000 100000\n"}, 3),
        (V2, {"cpu.max": "200000 100000\n"}, 2),  # the group's own folder, mounted in a container
        (V2, {"app/worker/cpu.max": "3200000 100000\n"}, 8),
        (V2, {"app/worker/cpu.max": "nonsense\n"}, 8),
        (V2, {"app/worker/cpu.max": "100000 0\n"}, 8),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "-1\n", "cpu/docker/abc/cpu.cfs_period_us": "100000\n"}, 8),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "250000", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "50000\n"}, 2),
        (V1, {"memory/docker/abc/cpu.max": "100000 100000\n"}, 8),
    ],
)
def test_available_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proc: str, files: dict[str, str], cpus: int
) -> None:
    monkeypatch.setattr(machine, "affinity", lambda: 8)
    write(tmp_path / "proc", proc)
    for name, text in files.items():
        write(tmp_path / "groups" / name, text)
    assert machine.available_cpus(tmp_path / "proc", tmp_path / "groups") == cpus


def test_affinity_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "affinity", lambda: 2)
    write(tmp_path / "proc", V2)
    write(tmp_path / "groups/app/worker/cpu.max", "400000 100000\n")
    assert machine.available_cpus(tmp_path / "proc", tmp_path / "groups") == 2
    assert machine.available_cpus(tmp_path / "none", tmp_path / "none") == 2


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A container with 2 CPUs of 8, whose torch has 8 threads."""
    state = {"threads": 8}
    monkeypatch.setattr(threads, "available_cpus", lambda: 2)
    monkeypatch.setattr(threads, "affinity", lambda: 8)
    monkeypatch.setattr(threads, "_asked", None)
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: state["threads"])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: state.update(threads=count))
    return state


def test_torch_gets_no_more_threads_than_a_container_has_cpus(container: dict[str, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads.fit_threads()
    assert container["threads"] == 2


@pytest.mark.parametrize("wanted", [1, 2])
def test_no_more_threads_than_cpus_may_be_asked_for_without_a_word(
    container: dict[str, int], monkeypatch: pytest.MonkeyPatch, wanted: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(wanted))
    container["threads"] = wanted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads.fit_threads()
    assert container["threads"] == wanted


@pytest.mark.parametrize("how", ["environment", "command", "program"])
def test_threads_that_were_asked_for_stay(
    container: dict[str, int], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    wanted = 8
    if how == "environment":
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
    elif how == "command":
        use_threads(8)
    else:
        wanted = 16  # more than the system lets run at all, so somebody has set it
        torch.set_num_threads(16)
    with pytest.warns(
        RuntimeWarning, match=f"{wanted} CPU threads are asked for, but this process may use 2"
    ):
        threads.fit_threads()
    assert container["threads"] == wanted


def test_fewer_threads_stay(container: dict[str, int]) -> None:
    use_threads(1)
    threads.fit_threads()
    assert container["threads"] == 1
    with pytest.raises(ValueError, match=r"--threads must lie in 1\.\.1024, got 0"):
        use_threads(0)
