"""Files and folders that are written whole or not at all."""

from pathlib import Path

import pytest

from pyrf.files import replace_folder, restore_folder, whole_file, whole_folder
from pyrf.partial import KeptError


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(TypeError), whole_file(path) as temporary, temporary.open("w") as file:
        file.writelines(["ne", 1])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"), whole_file(tmp_path / "none" / "a.txt") as temporary:
        temporary.write_text("new")
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.txt"):
        pass


def test_a_folder_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "file").write_text("new")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("file")] == [Path("a/b/file")]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "a") as temporary:
            (temporary / "half").write_text("")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="exists; give a new directory"), whole_folder(tmp_path):
        pass
    assert tmp_path.is_dir()


def folder_of(path: Path, name: str) -> Path:
    """A folder with one file in it."""
    with whole_folder(path) as temporary:
        (temporary / name).write_text(name)
    return path


def test_the_old_folder_is_there_until_the_new_one_takes_its_place(tmp_path: Path) -> None:
    path, new = folder_of(tmp_path / "a", "old"), folder_of(tmp_path / "b", "new")
    assert [file.name for file in path.iterdir()] == ["old"]
    replace_folder(path, new)
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "a", "old")
    with pytest.raises(TypeError), whole_folder(tmp_path / "b") as temporary:
        (temporary / "half").write_text(1)  # type: ignore[arg-type]
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("killed_before", [".a.old", "b"])
def test_a_replacement_that_was_killed_is_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_before: str
) -> None:
    """Killed before either of the two renames, the old folder has its name back and nothing else is left."""
    path, new = folder_of(tmp_path / "a", "old"), folder_of(tmp_path / "b", "new")
    rename = Path.rename

    def die(self: Path, target: Path) -> Path:
        if killed_before in (self.name, target.name):
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            replace_folder(path, new)
    restore_folder(path)
    assert [file.name for file in path.iterdir()] == ["old"]
    assert set(tmp_path.iterdir()) == {path, new}


def test_an_old_folder_has_its_name_back_when_the_new_one_cannot_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, new = tmp_path / "a", tmp_path / "new"
    path.mkdir()
    new.mkdir()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self == new:
            raise PermissionError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError, match="no"):
        replace_folder(path, new)
    assert set(tmp_path.iterdir()) == {path, new}


def test_a_folder_to_be_replaced_need_not_be_there(tmp_path: Path) -> None:
    replace_folder(tmp_path / "a", folder_of(tmp_path / "b", "file"))
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("a"), Path("a/file")]


def test_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Though they are of one process: the first to be done wins, and the other loses nothing."""
    path = tmp_path / "a"

    def write() -> None:
        with whole_folder(path) as late, whole_folder(path) as early:
            (late / "file").write_text("late")
            (early / "file").write_text("early")

    with pytest.raises(KeptError, match="not empty; what was made is whole and kept as") as error:
        write()
    assert (path / "file").read_text() == "early"
    assert (error.value.kept / "file").read_text() == "late"
    assert set(tmp_path.iterdir()) == {path, tmp_path / "a-1"}
