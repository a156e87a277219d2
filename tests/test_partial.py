"""Output under way: leftovers of dead processes go, living ones stay, and what is whole is never lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.files import whole_file, whole_folder
from pyrf.partial import KeptError, Partial, remove_dead, remove_living

FILL = """
import sys, time
from pyrf.partial import Partial
partial = Partial(sys.argv[1], folder=sys.argv[2] == "folder")
print(partial.path, flush=True)
time.sleep(600)
"""


def filling(target: Path, kind: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a file or folder under way."""
    process = subprocess.Popen(
        [sys.executable, "-c", FILL, str(target), kind], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def fill(partial: Partial, text: str = "new") -> None:
    (partial.path / "file" if partial.path.is_dir() else partial.path).write_text(text)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_goes_at_the_next_run(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out.mp4"
    process, left = filling(target, kind)
    with process:
        try:
            Partial(target).remove()
            assert list(tmp_path.iterdir()) == [left], "of a living process nothing is removed"
            Partial(tmp_path / "mp4").remove()  # a name that ends alike is another target
            Partial(tmp_path / "b.out.mp4").remove()
        finally:
            process.send_signal(signal.SIGKILL)
    Partial(tmp_path / "other.mp4").remove()
    assert list(tmp_path.iterdir()) == [left]
    Partial(target, folder=kind == "folder").remove()
    assert list(tmp_path.iterdir()) == []


def test_the_same_process_may_write_one_target_twice(tmp_path: Path) -> None:
    first, second = Partial(tmp_path / "a"), Partial(tmp_path / "a")
    fill(first, "first")
    fill(second, "second")
    second.commit()
    first.commit()
    assert (tmp_path / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_names_that_only_look_like_leftovers_stay(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / ".12345678.tmp.a").symlink_to(outside)
    for name in (".1234567.tmp.a", ".1234567g.tmp.a", "x.12345678.tmp.a", ".12345678.tmp.ab"):
        (tmp_path / name).touch()
    before = set(tmp_path.iterdir())
    Partial(tmp_path / "a").remove()
    remove_dead(outside)
    assert set(tmp_path.iterdir()) == before
    assert outside.read_text() == "mine"


def becomes_a_folder(target: Path) -> None:
    target.mkdir()
    (target / "x").touch()


def refuses_names(target: Path) -> None:
    target.parent.chmod(0o500)


def is_removed(target: Path) -> None:
    shutil.rmtree(target.parent)


def is_renamed(target: Path) -> None:
    target.parent.rename(target.parent.with_name("renamed"))


@pytest.mark.parametrize("change", [becomes_a_folder, is_removed, is_renamed])
def test_a_whole_file_is_kept_whatever_became_of_its_target(
    tmp_path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    target = tmp_path / "there" / "out.mp4"
    target.parent.mkdir()
    partial = Partial(target)
    fill(partial)
    change(target)
    with pytest.raises(KeptError, match=r"cannot write .*out\.mp4: .* is whole and kept as .*") as error:
        partial.commit()
    assert error.value.kept.read_text() == "new"
    assert not error.value.kept.name.startswith(".")
    assert str(error.value.kept) in str(error.value)
    assert not list(tmp_path.rglob(".*"))
    assert error.value.kept.is_relative_to(tmp_path)


@pytest.mark.parametrize("change", [becomes_a_folder, is_renamed])
def test_a_whole_folder_is_kept_too(tmp_path: Path, change: Callable[[Path], None]) -> None:
    target = tmp_path / "there" / "frames"
    target.parent.mkdir()
    partial = Partial(target, folder=True)
    fill(partial)
    change(target)
    with pytest.raises(KeptError) as error:
        partial.commit()
    assert (error.value.kept / "file").read_text() == "new"
    assert not error.value.kept.name.startswith(".")


def test_a_folder_that_went_with_all_that_was_in_it_is_not_said_to_be_kept(tmp_path: Path) -> None:
    target = tmp_path / "there" / "frames"
    target.parent.mkdir()
    partial = Partial(target, folder=True)
    is_removed(target)
    with pytest.raises(OSError, match="its folder went, with what was made") as error:
        partial.commit()
    assert not isinstance(error.value, KeptError)


def test_where_no_name_can_be_had_a_copy_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may not be written any more; the superuser may write everywhere."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    partial = Partial(tmp_path / "out.mp4")
    fill(partial)
    for verb in ("replace", "rename", "hardlink_to"):
        monkeypatch.setattr(Path, verb, refuse)
    with pytest.raises(KeptError, match="Permission denied") as error:
        partial.commit()
    assert error.value.kept.is_relative_to(tmp_path / "temporary")
    assert error.value.kept.read_text() == "new"


def test_what_is_kept_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("old")
    (tmp_path / "out-1.mp4").write_text("older")
    partial = Partial(tmp_path / "out.mp4")
    fill(partial)
    assert partial.keep() == tmp_path / "out-2.mp4"
    partial.remove()  # it has a name: there is nothing to drop
    assert [(tmp_path / name).read_text() for name in ("out.mp4", "out-1.mp4", "out-2.mp4")] == [
        "old",
        "older",
        "new",
    ]


def test_a_full_disk_at_the_very_end_is_no_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"), whole_file(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=255))
def test_every_name_that_a_file_may_have_will_do(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    name = name.encode()[:255].decode(errors="ignore")
    if name in ("", ".", ".."):
        return
    folder = tmp_path_factory.mktemp("names")
    with whole_file(folder / name) as temporary:
        temporary.write_text("new")
        assert temporary.name.endswith(Path(name).suffix[:32])
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    with whole_file(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"


def test_a_process_that_ends_at_once_leaves_nothing_but_what_is_its_parents(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "a")
    child = os.fork()
    if child == 0:
        remove_living()
        os._exit(0)
    os.waitpid(child, 0)
    assert partial.path.exists()
    with whole_folder(tmp_path / "b") as temporary:
        remove_living()
        assert not partial.path.exists()
        assert not temporary.exists()
        temporary.mkdir()
    partial.remove()
