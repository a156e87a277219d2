"""Files that are written whole or not at all."""

from pathlib import Path

import pytest

from pyrf.files import whole_file


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
