"""A server process with few descriptors, and clients that want them all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.abuse import HEADER, OTHER_ADDRESS, dial, half_open
from tests.support.running import PROMPT, TIMEOUT
from tests.support.serving import serving

FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))"
HEALTH_S = 1.0
TRIES = 50


@pytest.fixture(scope="module")
def url_and_process(
    random_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, psutil.Process, Path]]:
    log = tmp_path_factory.mktemp("log") / "stderr"
    with (
        log.open("w") as file,
        serving("--model", str(random_bundle), prelude=FEW_FILES, stderr=file) as (process, url),
    ):
        yield url, psutil.Process(process.pid), log


def health_s(url: str) -> float:
    """Seconds until health has answered, on a new connection."""
    start = time.perf_counter()
    assert httpx.get(f"{url}/health/live", timeout=TIMEOUT).status_code == 200
    return time.perf_counter() - start


def answers_soon(url: str) -> bool:
    """Whether health does; once is enough, as what else this machine does is no matter of the server's."""
    return any(health_s(url) < HEALTH_S for _ in range(TRIES))


@pytest.mark.parametrize("source", ["127.0.0.1", OTHER_ADDRESS])
@pytest.mark.parametrize("sent", [b"", HEADER, HEADER[:3]])
def test_half_open_connections_do_not_stop_the_server(
    url_and_process: tuple[str, psutil.Process, Path], sent: bytes, source: str
) -> None:
    url, process, log = url_and_process
    before = log.stat().st_size
    with half_open(url, 300, source, sent):
        assert answers_soon(url)
        assert process.num_fds() < 256
        reply = httpx.post(f"{url}/v1/sessions", json={"prompt": PROMPT}, timeout=TIMEOUT)
        assert reply.status_code == 201
        created = reply.json()
        headers = {"Authorization": f"Bearer {created['token']}"}
        httpx.delete(f"{url}/v1/sessions/{created['id']}", headers=headers, timeout=TIMEOUT)
    assert log.stat().st_size - before < 20_000


def test_headers_of_10_mib_cost_no_memory(url_and_process: tuple[str, psutil.Process, Path]) -> None:
    url, process, _ = url_and_process
    health_s(url)
    before = process.memory_info().rss
    socks = [dial(url) for _ in range(20)]
    for sock in socks:
        with suppress(ConnectionError):  # it is refused long before
            sock.sendall(HEADER + b"x: " + b"y" * 10 * 2**20)
    assert process.memory_info().rss - before < 20 * 2**20
    assert answers_soon(url)
    for sock in socks:
        sock.close()
