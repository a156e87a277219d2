"""The hub's own client, against a server that answers as the hub does: each failure has its own message."""

from __future__ import annotations

import errno
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from tests.support.bundle_checks import refused

ASK = """
import sys
from pyrf.bundle.hub import find_bundle, find_student
for name in sys.argv[1:]:
    for find in (find_bundle, find_student):
        try:
            find(name if find is find_bundle else name + "/x.pt")
        except ValueError as error:
            print(error)
"""


class Answers(http.server.BaseHTTPRequestHandler):
    """The owner of a repository says how the hub answers: `s404-RepoNotFound/name`."""

    def do_GET(self) -> None:
        status, _, code = next(
            part for part in self.path.split("/") if part[:1] == "s" and part[1:4].isdigit()
        )[1:].partition("-")
        self.send_response(int(status))
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"{}")

    do_HEAD = do_GET  # noqa: N815  (the name is http.server's)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(hub: str, cache: Path, *names: str, token: str | None) -> list[str]:
    """What `find_bundle` and `find_student` say, in a process that has this hub from its start."""
    variables = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    variables = {name: v for name, v in variables.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    if token:
        variables["HF_TOKEN"] = token
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names],
        env={**variables, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_answers_of_the_hub_with_a_token(hub: str, tmp_path: Path) -> None:
    names = ["s401/x", "s401-RepoNotFound/x", "s403-GatedRepo/x", "s403/x", "s404-RepoNotFound/x"]
    found = ask(hub, tmp_path, *names, token="hf_expired")
    expected = [
        "the hub refuses the token that is used for s401/x: it has expired or is wrong; run `hf auth login`",
        "the hub refuses the token that is used for s401-RepoNotFound/x: it has expired or is wrong; run",
        "s403-GatedRepo/x is gated: accept its terms on the hub and run `hf auth login`",
        "the hub does not let this token read s403/x; use one that may, or accept the terms of s403/x",
        "the hub has no s404-RepoNotFound/x; if it is private, run `hf auth login`",
    ]
    assert len(found) == 2 * len(expected)
    for i, message in enumerate(expected):
        assert found[2 * i].startswith(message)
        assert found[2 * i + 1].startswith(message)


def test_answers_of_the_hub_without_a_token(hub: str, tmp_path: Path) -> None:
    found = ask(hub, tmp_path, "s401-RepoNotFound/x", "s404-RevisionNotFound/x", token=None)
    assert found[:2] == 2 * ["the hub has no s401-RepoNotFound/x; if it is private, run `hf auth login`"]
    assert all("has no branch, tag or commit" in message for message in found[2:])


class FailingError(Exception):
    """An error with a response, as every client of HTTP has them."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}\nand more lines")
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            429,
            "the hub limits how often it is asked, and refuses owner/name for now; try again in some minutes",
        ),
        (500, "the hub is out of order (it answers 500 for owner/name); try again later"),
        (503, "the hub is out of order (it answers 503 for owner/name); try again later"),
    ],
)
def test_a_cause_below_the_error_is_told(status: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client hides it below one that says that nothing is in the cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("not here") from FailingError(status)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert refused("owner/name") == message


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some of it, or set HF_HOME to another folder"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EROFS, "the folder of the hub's cache is read-only; set HF_HOME to another folder"),
        (errno.EACCES, "the folder of the hub's cache may not be written; set HF_HOME"),
    ],
)
@pytest.mark.parametrize("below", [False, True])
def test_a_disk_that_cannot_take_it(
    number: int, message: str, below: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        error = OSError(number, os.strerror(number))
        if below:
            raise RuntimeError("the download failed") from error
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert f"cannot keep owner/name on this machine: {message}" in refused("owner/name")


# What is never asked of the hub


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def fail(*arguments: object, **_: object) -> str:
        raise AssertionError(f"the hub was asked for {arguments}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny-video").mkdir(parents=True)
    (tmp_path / "models" / "student.pt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("models/tiny-vdeo", "models/tiny-video"),
        ("./models/tiny-vide", "models/tiny-video"),
        ("models/tiny-video2/", "models/tiny-video"),
        ("./modles/x", ""),
        ("a/b/c", ""),
        ("/nowhere/at-all", ""),
        ("~/nowhere", ""),
        ("../x", ""),
        ("tinny", "tiny"),
    ],
)
def test_a_misspelt_folder(no_hub: Path, name: str, near: str) -> None:
    message = refused(name)
    assert message.startswith(f"no bundle {name!r}: there is nothing of that name")
    assert f"(near it: {near})" in message if near else "near it" not in message


@pytest.mark.parametrize("name", ["models/studnt.pt", "./models/student.pth", "models/deep/er/student.pt"])
def test_a_misspelt_student(no_hub: Path, name: str) -> None:
    message = refused("tiny", student=name)
    assert message.startswith(f"no student {name!r}: there is nothing of that name")


def test_addresses(no_hub: Path) -> None:
    page = "https://huggingface.co/owner/name"
    assert f"no bundle '{page}': an address; its name on the hub is owner/name; give" in refused(page)
    file = f"{page}/resolve/main/a/b.pt?download=true"
    assert "an address; its name on the hub is owner/name/a/b.pt; give" in refused("tiny", student=file)
    assert "an address; fetch what is there first; give" in refused("https://host//x/y")


def test_a_file_given_as_model(no_hub: Path) -> None:
    assert "it is a file; one with weights is given as student" in refused("models/student.pt")
