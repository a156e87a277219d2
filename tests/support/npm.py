"""Packages of npm that tests run in a browser: players that no one here wrote."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import chromium
from tests.support.running import TIMEOUT

WHIP_WHEP = (
    "whip-whep@1.2.0",
    "sha512-CP+Tht3O/N6QLebW5LxsNKgzFN5KX6WinLr1SLs74feagYu+Gqy+0dw48p5RQuE+FlrM4xyOlOdW2UOQwljImA==",
)
"""A player and its hash, as npm tells it: `npm view NAME dist.integrity`."""
HLS_JS = (
    "hls.js@1.7.4",
    "sha512-3GlxGdPvT2YHvQYOt+yOzT/DEior/qJVNIylHA77kgeoBTdQQqi70GwefNEUmHQeNGyjC8U62+bruqW/Tpm+tg==",
)


def unpacked(package: tuple[str, str], folder: Path) -> Path:
    """Download and unpack a package; its folder. The test is skipped where there is no npm, or no way to it.

    Args:
        package: name and version, and the hash that it must have.
    """
    name, integrity = package
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    command = [npm, "pack", name, "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm has no {name} here")
    archive = folder / done.stdout.strip().splitlines()[-1]
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    assert f"sha512-{digest}" == integrity, f"{name} is not the one that was looked at"
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / "package"


@contextmanager
def player(package: tuple[str, str], html: str, folder: Path) -> Iterator[tuple[Any, str]]:
    """A page in Chromium beside a package's files: what `unpacked` says holds here too.

    Args:
        html: of the page.

    Yields:
        The page, which is loaded by `goto(f"{origin}/player.html")`, and its origin.
    """
    files = unpacked(package, folder)
    (files / "player.html").write_text(html)
    with site(files) as origin, chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        yield page, origin


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # its name in http.server
        pass


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """A web server of a folder; its origin."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
