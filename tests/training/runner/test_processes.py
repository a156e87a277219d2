"""Two processes that train one model: they share work and agree on what is done by the clock."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from pyrf.training.runner import processes, stopping
from pyrf.training.runner.optim import orthogonalize
from pyrf.training.runner.trainer import train
from tests.support.line_stage import Line, settings


def share(folder: Path) -> None:
    torch.set_num_threads(1)
    matrices = torch.randn(5, 8, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        processes.share_work(orthogonalize, matrices), orthogonalize(matrices), rtol=0, atol=1e-6
    )
    assert processes.total([1.0, float(processes.rank())]) == [2.0, 1.0]
    assert processes.gather(processes.rank()) == [0, 1]
    (folder / f"shared-{processes.rank()}").touch()


def train_on_uneven_clocks(folder: Path) -> None:
    """The second process's clock runs 100 times as fast: alone it would evaluate at other steps."""
    torch.set_num_threads(1)
    clock, factor = time.perf_counter, 1 + 99 * processes.rank()
    time.perf_counter = lambda: factor * clock()
    stage = Line()
    chosen = settings(steps=12, log_steps=50, eval_minutes=1e-7, checkpoint_minutes=1e-7, keep=1)
    train(lambda: stage, chosen, folder / "run")
    torch.save(stage.module.state_dict(), folder / f"{processes.rank()}.pt")


def refuse(folder: Path) -> None:
    if processes.rank() == 1:
        raise FileNotFoundError(f"{folder} holds no codec")
    processes.barrier()


def test_what_a_user_can_mend_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no codec"):
        processes.launch(2, refuse, tmp_path)


def interrupt_the_caller(folder: Path) -> None:
    """And end by the SIGTERM that follows."""
    os.kill(os.getpid(), signal.SIGINT)  # a terminal sends it to all
    with stopping.noted() as stop:
        processes.barrier()
        if processes.rank() == 0:
            os.kill(os.getppid(), signal.SIGINT)
        until = time.monotonic() + 120
        while not stop.is_set():
            assert time.monotonic() < until
            time.sleep(0.01)
    (folder / f"ended-{processes.rank()}").touch()


def test_ctrl_c_ends_all_processes_politely(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            processes.launch(2, interrupt_the_caller, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert {path.name for path in tmp_path.iterdir()} == {"ended-0", "ended-1"}
    assert "Traceback" not in capfd.readouterr().err


def test_processes_share_work(tmp_path: Path) -> None:
    processes.launch(2, share, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"shared-0", "shared-1"}


def test_processes_agree_on_the_clock_and_the_weights(tmp_path: Path) -> None:
    processes.launch(2, train_on_uneven_clocks, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 12
    assert all(record["threads"] == 2 for record in records if "threads" in record)
