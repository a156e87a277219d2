"""Checkpoints: whole or not at all, the damaged passed over, the old removed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pyrf.training.runner import checkpoints

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7.0)}


def save(folder: Path, *steps: int, keep: int = 10) -> None:
    for step in steps:
        checkpoints.save(folder, step, {k: v + step for k, v in TENSORS.items()}, {"seconds": 0.5}, keep)


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path, 3)
    path = checkpoints.latest(tmp_path)
    assert path is not None
    assert checkpoints.read_progress(path) == {"seconds": 0.5, "step": 3}
    assert checkpoints.names(path) == {"a", "b"}
    read = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    checkpoints.load(path, read)
    assert all(torch.equal(read[name], TENSORS[name] + 3) for name in TENSORS)
    assert checkpoints.latest(tmp_path / "none") is None


def test_the_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 8, 9, 10, 11, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]


def test_a_run_that_went_back_keeps_what_it_writes(tmp_path: Path) -> None:
    """Damaged ones of later steps do not count, and go; so does what a dead process half wrote."""
    save(tmp_path, 100, 300, 400)
    for step in (300, 400):
        cut(tmp_path / f"step-00000{step}")
    (tmp_path / ".step-00000500.tmp").mkdir()
    save(tmp_path, 200, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000200"]


def cut(path: Path) -> None:
    file = next(path.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-1])


def flip(path: Path) -> None:
    file = next(path.glob("*.distcp"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": cut,
    "a bit flipped": flip,
    "shard missing": lambda path: next(path.glob("*.distcp")).unlink(),
    "no metadata": lambda path: (path / ".metadata").unlink(),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "empty": empty,
    "manifest is no JSON": lambda path: (path / "manifest.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_one_is_passed_over(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002")
    assert checkpoints.latest(tmp_path) == tmp_path / "step-00000001"
    assert "step-00000002 is damaged and passed over" in caplog.text


def test_a_half_written_one_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies while it writes leaves a temporary folder, which the next save clears away."""
    save(tmp_path, 1)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", die)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert checkpoints.latest(tmp_path) == tmp_path / "step-00000001"
    save(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
