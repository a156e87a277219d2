"""Where a server is, and the way to it: URLs, Unix sockets, TLS, paths, proxies."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pyrf.client import AsyncClient, BadArgumentError, BadReplyError, Client, UnreachableError
from pyrf.client.address import parse_address
from pyrf.serve.server import bind
from pyrf.serve.settings import ServeSettings
from pyrf.serve.tls import tls_context
from pyrf.serve.unix import unix_socket
from tests.support.certificates import write_certificate
from tests.support.client_calls import INFO, ask, closed_port
from tests.support.misbehaving import Misbehaving, hang, reply
from tests.support.running import PROMPT, ROOMY, TIMEOUT, Running

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("url", "http", "ws"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "ws://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", "ws://127.0.0.1:8000"),
        ("HTTP://Video.Example", "http://video.example", "ws://video.example"),
        ("https://video.example/live/", "https://video.example/live", "wss://video.example/live"),
        ("http://[::1]:8000", "http://[::1]:8000", "ws://[::1]:8000"),
        ("http://httpbin.example", "http://httpbin.example", "ws://httpbin.example"),
    ],
)
def test_urls(url: str, http: str, ws: str) -> None:
    address = parse_address(url)
    assert (address.http, address.ws, address.uds) == (http, ws, None)
    assert (address.tls is not None) == url.lower().startswith("https")


@pytest.mark.parametrize("url", ["unix:/run/pyrf.sock", "unix:///run/pyrf.sock"])
def test_unix_sockets(url: str) -> None:
    assert parse_address(url).uds == "/run/pyrf.sock"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "no server is named by ''"),
        ("127.0.0.1:8000", "did you mean http://127.0.0.1:8000?"),
        ("localhost:8000", "did you mean http://localhost:8000?"),
        ("ws://127.0.0.1:8000", "no server is named by 'ws://127.0.0.1:8000'"),
        ("ftp://video.example", "no server is named by"),
        ("http://", "no server is named by"),
        ("http://video.example:99999", "it is malformed"),
        ("http://video.example:0", "it is malformed"),
        ("http://[::1", "it is malformed"),
        ("http://video.example\n", "it is malformed"),
        ("http://video example", "it is malformed"),
        ("http://video.example?x=1", "no query or fragment"),
        ("http://video.example#x", "no query or fragment"),
        ("http://user:s3cret@video.example", "the URL holds a user or password"),
        ("unix:run/pyrf.sock", "named by its whole path"),
        ("unix:", "named by its whole path"),
    ],
)
def test_urls_that_name_no_server(url: str, message: str) -> None:
    with pytest.raises(BadArgumentError) as refused:
        AsyncClient(url)
    assert message in str(refused.value)
    assert "s3cret" not in str(refused.value)


def watch(url: str, **options: Any) -> None:
    """All ways of talking: a call, a stream, a clip."""

    async def main() -> None:
        async with AsyncClient(url, **options) as client:
            assert (await client.server_info()).model == "random"
            async with await client.create_session(PROMPT, pace="max") as session:
                assert (await anext(session)).header.frame == 0
            assert b"ftyp" in b"".join([piece async for piece in client.video(PROMPT, 9)])

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


@pytest.mark.parametrize("slash", ["", "/"])
def test_below_a_path(serve: Callable[..., Running], slash: str) -> None:
    watch(f"{serve(root_path='/live').url}/live{slash}")


def test_by_a_unix_socket(pipe: Any, tmp_path: Path) -> None:
    place = tmp_path / "pyrf.sock"
    with unix_socket(str(place)) as sock, Running(pipe, ServeSettings(**ROOMY), sock=sock):
        watch(f"unix:{place}")


def test_by_ipv6(pipe: Any) -> None:
    try:
        sock = bind("::1", 0)
    except ValueError:
        pytest.skip("this machine has no IPv6")
    with Running(pipe, ServeSettings(**ROOMY), sock=sock):
        watch(f"http://[::1]:{sock.getsockname()[1]}")


def test_by_tls(pipe: Any, tmp_path: Path) -> None:
    certfile, keyfile = map(str, write_certificate(tmp_path))
    with ExitStack() as stack:
        tls = tls_context(certfile, keyfile)
        server = stack.enter_context(
            Running(pipe, ServeSettings(**ROOMY), sock=bind("127.0.0.1", 0), tls=tls)
        )
        url = server.url.replace("http://", "https://")
        watch(url, verify=certfile)
        watch(url, verify=Path(certfile))
        watch(url, verify=False)
        with pytest.raises(BadReplyError, match=r"is not trusted .*; see verify="), Client(url) as client:
            client.server_info()
    for path, message in (("/nowhere.pem", "No such file"), (keyfile, "it holds no certificate in PEM")):
        with pytest.raises(BadArgumentError, match=f"cannot read the authorities of verify=.*{message}"):
            AsyncClient("https://video.example", verify=path)


def test_this_machine_is_asked_directly(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES[:3]:
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    watch(server.url)
    watch(server.url.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    watch(server.url)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_others_are_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with Misbehaving(reply(INFO)) as proxy:
        monkeypatch.setenv(name, proxy.url if name != "ALL_PROXY" else proxy.url.removeprefix("http://"))
        assert asyncio.run(ask("http://video.example:8000")).model == "m"
        assert proxy.heads[0].startswith("GET http://video.example:8000/v1/model ")
        monkeypatch.setenv("NO_PROXY", "video.example")
        assert parse_address("http://video.example:8000").proxy is None
        assert parse_address("http://other.example").proxy is not None


def test_a_stream_goes_through_the_proxy_too(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets CONNECT for the WebSocket, and carries it to the server."""
    host, port = "video.example", int(server.url.rpartition(":")[2])
    seen: list[str] = []

    def carry(connection: socket.socket) -> None:
        head = proxy.heads[-1]
        seen.append(head.split(" ")[0])
        connection.sendall(reply(b"", "403 Forbidden"))

    created = server.create(pace="max")
    with Misbehaving(carry) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)

        async def main() -> None:
            async with AsyncClient(f"http://{host}:{port}", patience=0) as client:
                from pyrf.client import AsyncSession, SessionLostError
                from pyrf.protocol import SessionCreated

                info = SessionCreated.model_validate({**created, "grace_s": 0})
                with pytest.raises(SessionLostError, match="no connection to session"):
                    await anext(AsyncSession(client.url, client._calls, info, "raw"))

        asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    assert set(seen) == {"CONNECT"}
    server.delete(created)


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("socks5://user:s3cret@10.0.0.1:1080", "names a SOCKS proxy, which needs socksio and python-socks"),
        ("gopher://10.0.0.1", "names a proxy of the kind 'gopher'"),
        ("http://user:s3cret@[::1", "no usable URL"),
        ("http://s3cret@10.0.0.1:8080", "no usable URL"),
        ("http://10.0.0.1:99999", "no usable URL"),
        ("http://10.0.0.1/s3cret", "no usable URL"),
        ("http://", "no usable URL"),
    ],
)
def test_proxies_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str, message: str) -> None:
    monkeypatch.setattr("pyrf.client.address.find_spec", lambda name: None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    for make in (AsyncClient, Client):
        with pytest.raises(UnreachableError) as refused:
            make("http://video.example")
        assert message in str(refused.value)
        assert "s3cret" not in str(refused.value)


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(UnreachableError, match="through the proxy that the environment names"):
        asyncio.run(ask("http://video.example"))
    with Misbehaving(hang) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(UnreachableError, match="did not answer within"):
            asyncio.run(ask("http://video.example", timeout=0.3))
