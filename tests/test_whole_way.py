"""The lesson that goes the whole way: its commands run as they stand there, and make its pictures.

Pictures: PYRF_SCREENSHOTS=docs/img pytest tests/test_whole_way.py; with -m slow that of the installation.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pyrf.commands.app import app
from pyrf.video import read_frames
from pyrf.worlds.shapes.detector import detect
from tests.support.receivers import MODULE, found, free_port, wait_for_port
from tests.support.serving import serving
from tests.support.terminal import lines_of, terminal
from tests.test_documentation import BLOCKS, commands
from tests.test_site import LESSONS, ROOT, same_picture

PAGE = LESSONS / "whole-way.md"
IMAGES = ROOT / "docs" / "img"
TEXT = PAGE.read_text()
WORDS = {
    name: [words[1:] for words in commands(PAGE) if words[1:2] == [name]] for name in ("generate", "words")
}
SCREENSHOTS = (folder := os.environ.get("PYRF_SCREENSHOTS")) and Path(
    folder
).resolve()  # tests change the folder
RTMP_PORT, SERVER = "1935", "http://127.0.0.1:8000"
TIMEOUT = 300
"""Seconds for what should come at once; a loaded machine may take long."""


def block(kind: str, word: str) -> str:
    """The block of the page, of a kind, that has a word in it."""
    (wanted,) = [text for of, text in BLOCKS.findall(TEXT) if of == kind and word in text]
    return wanted


def keep(picture: Path, name: str) -> None:
    """Save a picture for the page, if PYRF_SCREENSHOTS says where."""
    if SCREENSHOTS:
        shutil.copyfile(picture, SCREENSHOTS / name)


def pyrf(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", ["first", "own"])
def test_streams_are_those_of_the_pictures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = [words for words in WORDS["generate"] if f"{name}.png" in words]
    pyrf(*command)
    keep(tmp_path / f"{name}.png", f"way-{name}.png")
    same_picture(tmp_path / f"{name}.png", f"way-{name}.png")


def test_the_model_knows_the_words_of_the_page() -> None:
    (command,) = [words for words in WORDS["words"] if len(words) > 1]
    assert "knows all words" in pyrf(*command)
    assert command[1] in [words[1] for words in WORDS["generate"]]  # what is asked for is then made


def test_rtmp_reaches_the_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's receiver takes the page's stream; another port, as that one may be taken."""
    if not MODULE.exists():
        pytest.skip("nginx has no RTMP module; Debian's is libnginx-mod-rtmp")
    monkeypatch.chdir(tmp_path)
    port = free_port()
    settings = block("nginx", "rtmp")
    assert str(MODULE) in settings
    (tmp_path / "nginx.conf").write_text(settings.replace(RTMP_PORT, str(port)))
    start = ["sh", "-c", f"exec {block('sh', 'nginx -p')}".replace("nginx -p", f"{found('nginx')} -p")]
    with subprocess.Popen(start) as receiver:
        try:
            wait_for_port(port)
            (command,) = [words for words in WORDS["generate"] if any("rtmp://" in word for word in words)]
            pyrf(*[word.replace(RTMP_PORT, str(port)) for word in command])
        finally:
            receiver.terminate()
    seen = detect(read_frames("show.flv", height=64, width=96, fps=16, limit=200))
    assert (seen.color, seen.shape, seen.motion) == ("red", "circle", "right")
    found("ffmpeg")
    subprocess.run(["sh", "-c", block("sh", "ffmpeg")], check=True, stdin=subprocess.DEVNULL)
    keep(tmp_path / "received.png", "way-rtmp.png")
    with Image.open("received.png") as made, Image.open(IMAGES / "way-rtmp.png") as shown:
        assert made.size == shown.size == (5 * 192 + 4 * 2, 2 * 128 + 2)


def test_a_page_of_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("playwright", reason="the page is looked at with playwright, from the test extra")
    from tests.support.browser import Visit, chromium, find_chromium

    if find_chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    program = block("python", "mine.html")
    assert len(program.splitlines()) == 10
    monkeypatch.chdir(tmp_path)

    def look(_: str) -> str:
        """In place of the person who opens the page, and then presses Enter."""
        with chromium() as browser:
            visit = Visit(browser, (tmp_path / "mine.html").as_uri(), viewport={"width": 520, "height": 430})
            visit.until("document.images[0].naturalWidth === 96")
            visit.redraws(30)
            visit.page.screenshot(path=tmp_path / "embed.png")
            visit.close()
        return ""

    with serving() as (_, url):
        exec(compile(program.replace(SERVER, url), PAGE.name, "exec"), {"input": look})
    with Image.open(tmp_path / "embed.png") as image:
        pixels = np.asarray(image.convert("RGB"), int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1:] < 100).all(-1)
    assert red.sum() > 1000
    keep(tmp_path / "embed.png", "way-embed.png")


def test_pictures_of_the_page_are_there_and_made_by_tests() -> None:
    """Each step has one; those of the page of the server are made by its own tests."""
    steps = re.split(r"^## \d\. ", TEXT, flags=re.MULTILINE)[1:]
    shown = [re.findall(r"\]\(\.\./img/([\w-]+)\.(?:png|svg)\)", step) for step in steps]
    assert len(steps) == 8
    assert all(shown)
    makers = "".join(
        file.read_text() for file in (Path(__file__), *(ROOT / "tests" / "serve" / "page").glob("test_*.py"))
    )
    for name in itertools.chain(*shown):
        what = name.partition("-")[2]
        assert f"{name}." in makers or f'picture("{what}")' in makers or f'"{what}"' in makers, name


INSTALL = ["make demo", "source .venv/bin/activate", "pyrf doctor"]


def test_the_picture_of_the_installation_shows_the_page_s_commands() -> None:
    shown = lines_of(IMAGES / "way-install.svg")
    assert [line[2:] for line in shown if line.startswith("$ ")] == INSTALL
    assert all(f"\n    {command}\n" in TEXT for command in INSTALL)
    assert any(line.startswith("demo/demo.mp4: 160 frames") for line in shown)
    assert any(line.startswith("ok       model valley: loads") for line in shown)
    assert not [line for line in shown if line.startswith("problem")]


@pytest.mark.slow  # pip installs torch and all the rest
def test_the_installation(tmp_path: Path) -> None:
    """In an empty folder, with a clone and an environment of its own."""
    clone = tmp_path / "pyrf"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    # What pip says of the indexes of a machine belongs to nobody else's installation.
    quiet = {"PIP_QUIET": "2", "PYTHON": f"python3.{sys.version_info.minor}", "COLUMNS": "100"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYRF_MODEL")
    }
    shown = []
    for command in INSTALL:
        said = subprocess.run(
            ["bash", "-c", f"[ ! -d .venv ] || source .venv/bin/activate; {command}"],
            cwd=clone,
            env={**environment, **quiet},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert said.returncode == 0, said.stdout
        shown.append((command, said.stdout))
    (tmp_path / "install.svg").write_text(terminal(shown))
    keep(tmp_path / "install.svg", "way-install.svg")
    assert any(line.startswith("ok       model valley: loads") for line in lines_of(tmp_path / "install.svg"))
