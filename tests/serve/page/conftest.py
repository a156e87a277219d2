"""One browser, and one server of the bundled model, for all tests of the page.

Screenshots for the documentation: PYRF_SCREENSHOTS=docs/img pytest tests/serve/page
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.cable import Cable
from tests.support.serving import stopping_well

if TYPE_CHECKING:  # without playwright these tests are skipped
    from playwright.sync_api import Browser

    from tests.support.browser import Visit

FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Only one can be had at a time; its camera is not a real one."""
    from tests.support.browser import chromium

    with chromium(*FAKE_CAMERA) as browser:
        yield browser


@pytest.fixture(scope="package")
def port() -> Iterator[int]:
    """Of a server of the bundled model with room for one session."""
    with stopping_well("--max-sessions", "1", "--creates-per-minute", "1000") as greeting:
        found = re.search(r":(\d+)$", greeting.strip())
        assert found is not None, greeting
        yield int(found[1])


@pytest.fixture
def cable(port: int) -> Iterator[Cable]:
    """Between a page and the server of `port`."""
    with Cable(port) as cable:
        yield cable


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens the page of a server; afterwards its session is over, and nothing went wrong in the page."""
    from tests.support.browser import Visit

    visits: list[tuple[str, Visit]] = []

    def open_page(port: int, **context: object) -> Visit:
        url = f"http://127.0.0.1:{port}/"
        visits.append((url, Visit(browser, url, **context)))
        return visits[-1][1]

    yield open_page
    for url, visited in visits:
        if session := visited.session:
            headers = {"Authorization": f"Bearer {session['token']}"}
            httpx.delete(f"{url}v1/sessions/{session['id']}", headers=headers)
        visited.close()
        assert visited.problems == []
