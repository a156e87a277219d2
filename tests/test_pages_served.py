"""Pages that tell of a server: their commands start one, and their Python is run against it, in order."""

from __future__ import annotations

import ast
import inspect
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server comes with the serve extra")

from pyrf import cli
from pyrf.serve.keys.file import read_keys
from tests.support.client_calls import run as in_a_loop
from tests.support.receivers import free_port, rtmp_server
from tests.support.serving import serving
from tests.test_documentation import BLOCKS, ROOT, Enough, commands
from tests.test_page_blocks import SERVED, blocks

SERVER = "http://127.0.0.1:8000"
ALLOW_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def lines(page: str, *begin: str) -> list[list[str]]:
    """The commands of a page that begin with these words."""
    found = [words for words in commands(ROOT / "docs" / f"{page}.md") if words[: len(begin)] == list(begin)]
    assert found, f"{page} has no command {' '.join(begin)}"
    return found


def execute(block: str, session: dict[str, Any], *changes: tuple[str, str]) -> None:
    """Run a block as the reader does, who puts `yours()` where it has dots, and may await at the top."""
    for old, new in changes:
        assert old in block, old
        block = block.replace(old, new)
    code = compile(
        re.sub(r"^( +)\.\.\.$", r"\1yours()", block, flags=re.MULTILINE), "page", "exec", ALLOW_AWAIT
    )
    with suppress(Enough):
        if code.co_flags & inspect.CO_COROUTINE:
            in_a_loop(eval(code, session))
        else:
            exec(code, session)


def test_all_blocks_are_run() -> None:
    """Each page has its own test below, which takes its blocks by number."""
    assert {page: len(blocks(f"docs/{page}.md", served=True)) for page in SERVED} == {
        "keys": 1,
        "live-video": 1,
        "serving": 4,
    }


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    def pyrf(words: list[str]) -> str:
        assert cli.run(words[1:]) == 0, words
        return capsys.readouterr().out

    secrets = {
        words[3]: pyrf(words).strip() for words in lines("keys", "pyrf", "keys", "new") if len(words) > 4
    }
    assert list(secrets) == ["studio", "prometheus", "ops"]
    assert all(name in pyrf(lines("keys", "pyrf", "keys", "list")[0]) for name in secrets)
    (written,) = [
        text for kind, text in BLOCKS.findall((ROOT / "docs/keys.md").read_text()) if kind == "yaml"
    ]
    Path("theirs.yaml").write_text(written)
    (theirs,), (ours, *_) = read_keys("theirs.yaml"), read_keys("keys.yaml")
    assert (theirs.name, theirs.sessions, theirs.seconds_per_day) == ("studio", 4, 7200)
    assert (ours.sessions, ours.seconds_per_day) == (theirs.sessions, theirs.seconds_per_day)

    (start,) = lines("keys", "pyrf", "serve")
    with serving(*start[2:], stderr=None) as (_, url):
        monkeypatch.setenv("PYRF_TOKEN", secrets["ops"])  # of the admin's shell, and not of the server's

        def admin(words: list[str], **ids: str) -> str:
            return pyrf([ids.get(word, word.replace("https://video.example", url)) for word in words])

        listed, end, drain, undrain = lines("keys", "pyrf", "admin")[:4]
        seen: list[str] = []

        def yours() -> None:
            """In the session of the key: an admin lists it, and ends it."""
            seen.append(admin(listed))
            seen.append(admin(end, ID=session["session"].info().id))

        session: dict[str, Any] = {"key": secrets["studio"], "yours": yours}
        execute(blocks("docs/keys.md", served=True)[0], session, (SERVER, url))
        assert "studio" in seen[0]
        admin(drain)
        admin(undrain)
        assert "revoked 'studio'" in pyrf(lines("keys", "pyrf", "keys", "revoke")[0])
    assert [key.name for key in read_keys("keys.yaml")] == ["prometheus", "ops"]


def test_live_video() -> None:
    """The camera is another picture each time; the session ends after a few."""
    taken: list[int] = []

    def camera() -> np.ndarray:
        taken.append(len(taken))
        if len(taken) > 12:
            raise Enough
        return np.full((64, 96, 3), 10 * len(taken), np.uint8)

    pixels = np.zeros((64, 96, 3), np.uint8)
    with serving(stderr=None) as (_, url):
        session: dict[str, Any] = {"pixels": pixels, "camera": camera}
        execute(blocks("docs/live-video.md", served=True)[0], session, (SERVER, url))
    assert len(taken) == 13


def test_outputs_and_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's receiver is one on this machine."""
    monkeypatch.chdir(tmp_path)
    sent_on, _, async_client, client = blocks("docs/serving.md", served=True)
    (start,) = [words for words in lines("serving", "pyrf", "serve") if "--allow-output" in words]
    port = free_port()
    theirs, ours = "rtmp://live.example/app", f"rtmp://127.0.0.1:{port}/live"
    Path("recordings").mkdir()
    shown: list[Any] = []

    def show(pixels: np.ndarray) -> None:
        shown.append(pixels.shape)
        if len(shown) == 10:
            raise Enough

    def yours() -> None:
        shown.append(session["frame"].header.frame)
        if len(shown) == 20:
            raise Enough

    session: dict[str, Any] = {"show": show, "yours": yours, "clicked": True}
    with serving(*[word.replace(theirs, ours) for word in start[2:]], stderr=None) as (_, url):
        execute(async_client, session, (SERVER, url))
        assert shown == [(64, 96, 3)] * 10
        assert session["reply"].prompt_id == 9  # one for each frame but the last
        execute(client, session, (SERVER, url))
        assert shown[10:] == list(range(10))
        (received := tmp_path / "received").mkdir()
        with rtmp_server(received, port):
            execute(sent_on, session, (SERVER, url), (theirs, ours))
        printed = capsys.readouterr().out  # both are under way when the page asks for them
        assert f"{ours}/..." in printed
        assert "show.mp4" in printed


def test_several_models(capsys: pytest.CaptureFixture[str]) -> None:
    start, _ = [words for words in lines("serving", "pyrf", "serve") if words.count("--model") == 2]
    block = blocks("docs/serving.md", served=True)[1]
    chosen: list[str] = []
    session: dict[str, Any] = {"yours": lambda: chosen.append(session["session"].info().model)}
    with serving(*start[2:], stderr=None) as (_, url):
        execute(block, session, (SERVER, url))
    assert capsys.readouterr().out == "['valley', 'tiny']\n"
    assert chosen == ["valley"]
    assert session["small"].model == "tiny"
