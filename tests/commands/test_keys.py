"""`pyrf keys`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyrf import cli
from pyrf.serve.keys.file import read_keys
from pyrf.serve.keys.key import hash_of


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the variable of the server names."""
    monkeypatch.setenv("PYRF_SERVE_KEYS", str(tmp_path / "keys.yaml"))
    return tmp_path / "keys.yaml"


def keys(*arguments: str) -> int:
    return cli.run(["keys", *arguments])


def test_a_key_is_made_listed_and_revoked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys("new", "studio", "--sessions", "4", "--minutes-per-day", "90") == 0
    out, err = capsys.readouterr()
    secret = out.strip()
    assert out == f"{secret}\n"  # so that a script can take it
    assert secret not in err
    assert keys("new", "ops", "--may", "admin", "--may", "metrics") == 0
    capsys.readouterr()
    studio, ops = read_keys(str(file))
    assert (studio.sha256, studio.may, studio.sessions) == (hash_of(secret), ("sessions",), 4)
    assert studio.seconds_per_day == 5400
    assert (ops.may, ops.sessions, ops.seconds_per_day) == (("admin", "metrics"), None, None)

    assert keys("list") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows] == ["name", "studio", "ops"]
    assert rows[1].split() == ["studio", "sessions", "4", "90", str(studio.created)]
    assert rows[2].split() == ["ops", "admin,", "metrics", "any", "any", str(ops.created)]

    assert keys("revoke", "studio") == 0
    assert capsys.readouterr().out == "revoked 'studio'\n"
    assert [key.name for key in read_keys(str(file))] == ["ops"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("new", "a b"), "a name has up to 40 letters, digits, dots, dashes and underscores, got 'a b'"),
        (("new", "token"), "the name 'token' belongs to an option of the server"),
        (("new", "ops"), "there is a key 'ops' already; revoke it first"),
        (("new", "x", "--may", "all"), "--may must be sessions, metrics or admin, got 'all'"),
        (("new", "x", "--sessions", "0"), "--sessions must be positive and finite, got 0"),
        (("new", "x", "--minutes-per-day", "inf"), "--minutes-per-day must be positive and finite, got inf"),
        (("new", "x", "--keys", "no/such/keys.yaml"), "there is no folder"),
        (("revoke", "opps"), "has no key 'opps'; did you mean 'ops'?"),
        (("list", "--keys", "none.yaml"), "--keys none.yaml: there is no such file; make it with"),
        (("revoke", "ops", "--keys", "none.yaml"), "--keys none.yaml: there is no such file"),
    ],
)
def test_what_is_refused(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    keys("new", "ops")
    before = file.read_bytes()
    monkeypatch.chdir(file.parent)
    capsys.readouterr()
    assert keys(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["keys.yaml"]


def test_it_is_quick(file: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys('torch numpy fastapi starlette uvicorn'.split()))\n"
        "from pyrf.cli import run\n"
        "assert run(['keys', 'new', 'studio']) == 0\n"
        "assert run(['keys', 'list']) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [key.name for key in read_keys(str(file))] == ["studio"]


def test_a_server_for_others_needs_a_token_or_keys(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[object] = []
    monkeypatch.setattr(
        "pyrf.serve.server.run", lambda make, settings, sock, **_: served.append(settings.keys)
    )
    command = ["serve", "--host", "0.0.0.0", "--port", "0"]
    monkeypatch.delenv("PYRF_SERVE_KEYS")
    assert cli.run(command) == 2
    assert "set a token (--token or PYRF_TOKEN), or make keys (--keys)" in capsys.readouterr().err
    keys("new", "studio", "--keys", str(file))
    assert cli.run([*command, "--keys", str(file)]) == 0
    assert served == [str(file)]
