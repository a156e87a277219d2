"""The file of API keys: what is read, what is refused, and what an edit leaves."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyrf.serve.keys.file import MAX_KEYS, editing, read_keys
from pyrf.serve.keys.key import Key, hash_of, new_secret
from pyrf.serve.settings import ServeSettings
from tests.support.api_keys import add_key, remove_key

HASH = hash_of("any")


def test_a_key_comes_back_and_is_not_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    options: dict[str, Any] = {"may": ("admin", "metrics"), "sessions": 3, "seconds_per_day": 90.5}
    secret = add_key(file, "studio", created=date(2026, 1, 2), **options)
    assert read_keys(str(file)) == (
        Key(name="studio", sha256=hash_of(secret), created=date(2026, 1, 2), **options),
    )
    assert secret.removeprefix("pyrf_") not in file.read_text()
    remove_key(file, "studio")
    assert read_keys(str(file)) == ()


def test_keys_differ_and_have_256_bits() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(secret) for secret in made} == {len("pyrf_") + 43}  # 32 bytes in base64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys: [", "is no YAML"),
        ("[]", "valid dictionary"),
        ("key: []", "unknown key 'key'; did you mean 'keys'?"),
        (f"keys: [{{name: a b, sha256: {HASH}}}]", "keys.0.name"),
        (f"keys: [{{name: {'a' * 41}, sha256: {HASH}}}]", "keys.0.name"),
        ("keys: [{name: a, sha256: 12}]", "keys.0.sha256"),
        (f"keys: [{{name: a, sha256: {HASH.upper()}}}]", "keys.0.sha256"),
        (f"keys: [{{name: a, sha256: {HASH}, may: [all]}}]", "keys.0.may.0"),
        (f"keys: [{{name: a, sha256: {HASH}, may: []}}]", "keys.0.may"),
        (f"keys: [{{name: a, sha256: {HASH}, sessions: 0}}]", "keys.0.sessions"),
        (f"keys: [{{name: a, sha256: {HASH}, seconds_per_day: .inf}}]", "keys.0.seconds_per_day"),
        (f"keys: [{{name: a, sha256: {HASH}, quota: 3}}]", "keys.0: unknown key 'quota'"),
        (
            f"keys: [{{name: a, sha256: {HASH}}}, {{name: a, sha256: {'f' * 64}}}]",
            "several keys are called 'a'",
        ),
        (f"keys: [{{name: a, sha256: {HASH}}}, {{name: b, sha256: {HASH}}}]", "the same sha256"),
        (f"keys: [{{name: token, sha256: {HASH}}}]", "the name 'token' belongs to an option"),
        ("x" * 1_000_001, "is larger than 1000000 bytes"),
        ("\xff", "is no text"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_served(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=re.escape(str(file))) as refused:
        ServeSettings(keys=str(file))
    assert message in str(refused.value)


def test_a_missing_file_is_refused_with_the_way_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; make it with `pyrf keys new NAME --keys"):
        ServeSettings(keys=str(tmp_path / "keys.yaml"))


def test_there_are_only_so_many_keys(tmp_path: Path) -> None:
    """Each is a label of metrics."""
    file = tmp_path / "keys.yaml"
    keys = [{"name": f"k{i}", "sha256": hash_of(str(i))} for i in range(MAX_KEYS)]
    file.write_text(yaml.safe_dump({"keys": keys}))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"there may be {MAX_KEYS} keys, got {MAX_KEYS + 1}"):
        add_key(file, "one-more")
    assert file.read_bytes() == before


def test_an_edit_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    add_key(file, "a")
    before = file.read_bytes()

    def spoil() -> None:
        with editing(str(file)) as keys:
            keys.clear()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        spoil()
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["keys.yaml"]


def test_edits_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: add_key(file, f"k{i}"), range(24)))
    assert sorted(key.name for key in read_keys(str(file))) == sorted(f"k{i}" for i in range(24))


def test_a_file_keeps_its_mode_and_a_link_its_target(tmp_path: Path) -> None:
    file, link = tmp_path / "real.yaml", tmp_path / "keys.yaml"
    add_key(file, "a")
    file.chmod(0o640)
    link.symlink_to(file)
    add_key(link, "b")
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert [key.name for key in read_keys(str(file))] == ["a", "b"]
