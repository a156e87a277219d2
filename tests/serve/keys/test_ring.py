"""Which key a secret is, and what becomes of a server's keys when their file changes."""

from __future__ import annotations

import asyncio
import hmac
import logging
from pathlib import Path

import pytest

from pyrf.serve.keys import ring
from pyrf.serve.keys.key import Key
from pyrf.serve.keys.ring import Keyring
from pyrf.serve.settings import ServeSettings
from tests.support.api_keys import add_key, remove_key


def names(found: list[Key]) -> list[str]:
    return [key.name for key in found]


def test_tokens_and_the_keys_of_a_file_are_one_thing(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    secret = add_key(file, "a", may=("admin",))
    keyring = Keyring(ServeSettings(token="one", metrics_token="two", keys=str(file)))
    assert [names(keyring.find(one)) for one in ("one", "two", secret, "three", "", secret + " ")] == [
        ["token"],
        ["metrics-token"],
        ["a"],
        [],
        [],
        [],
    ]
    assert [key.may for key in keyring.keys] == [("sessions", "metrics"), ("metrics",), ("admin",)]


@pytest.mark.parametrize(
    ("token", "metrics_token", "has_file", "guarded"),
    [
        (None, None, False, (False, False)),
        ("t", None, False, (True, True)),
        (None, "m", False, (False, True)),
        (None, None, True, (True, True)),
    ],
)
def test_what_needs_a_key(
    tmp_path: Path, token: str | None, metrics_token: str | None, has_file: bool, guarded: tuple[bool, bool]
) -> None:
    """An empty file lets nobody in, and what admins do is never open."""
    file = tmp_path / "keys.yaml"
    file.write_text("keys: []\n")
    settings = ServeSettings(token=token, metrics_token=metrics_token, keys=str(file) if has_file else None)
    keyring = Keyring(settings)
    assert (keyring.guards("sessions"), keyring.guards("metrics")) == guarded
    assert keyring.guards("admin")
    assert settings.is_open == (not guarded[0])


def test_time_does_not_tell_which_key_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent, each hash is compared, in constant time."""
    file = tmp_path / "keys.yaml"
    secrets = [add_key(file, name) for name in "abc"]
    keyring = Keyring(ServeSettings(token="t", keys=str(file)))
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(other)
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(ring, "hmac", type("Hmac", (), {"compare_digest": staticmethod(compare)}))
    for sent in (secrets[0], secrets[2], "t", "wrong"):
        compared.clear()
        keyring.find(sent)
        assert compared == [key.sha256 for key in keyring.keys]


def test_a_file_that_cannot_be_read_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ring, "LOOK_S", 0.005)
    file = tmp_path / "keys.yaml"
    first, second = add_key(file, "a"), add_key(file, "b")
    good = file.read_bytes()
    keyring = Keyring(ServeSettings(keys=str(file)))
    changes: list[list[str]] = []

    async def until(holds: object) -> None:
        async with asyncio.timeout(60):
            while not holds():  # type: ignore[operator]
                await asyncio.sleep(0.005)

    async def change() -> None:
        watching = asyncio.create_task(
            keyring.watch(lambda: changes.append([key.name for key in keyring.keys]))
        )
        for spoil in (lambda: file.write_text("keys: ["), file.unlink):
            caplog.clear()
            spoil()
            await until(lambda: caplog.records)
            assert names(keyring.find(first)) == ["a"]
        file.write_bytes(good)
        await until(lambda: changes)
        remove_key(file, "a")
        await until(lambda: changes[-1] == ["b"])
        watching.cancel()

    with caplog.at_level(logging.ERROR):
        asyncio.run(change())
    assert (names(keyring.find(first)), names(keyring.find(second))) == ([], ["b"])
