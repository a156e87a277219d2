"""The names a server answers to, and the pages that may use it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin as OriginHeader

from pyrf.serve.hosts import (
    AllowedHosts,
    Host,
    Origin,
    Reach,
    is_own_origin,
    own_names,
    parse_allowed_host,
    parse_origin,
    parse_root_path,
)
from pyrf.serve.settings import ServeSettings
from tests.serve.test_limits import error_of
from tests.support.running import PROMPT, Running, read


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", ("localhost", None)),
        ("LocalHost:8000", ("localhost", 8000)),
        ("localhost.", ("localhost", None)),
        ("localhost:", ("localhost", None)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8000", ("::1", 8000)),
        ("[0:0::1]", ("::1", None)),
        ("bücher.example", ("xn--bcher-kva.example", None)),
        ("a_b.example", ("a_b.example", None)),
        ("", None),
        ("[::1", None),
        ("::1", None),
        ("a@localhost", None),
        ("localhost/", None),
        ("localhost,evil.example", None),
        ("local host", None),
        ("localhost:99999", None),
        ("localhost\n", None),
        (".example", None),
        ("a..b", None),
        ("a" * 64, None),
        ("*.example", None),
    ],
)
def test_host_headers(text: str, host: tuple[str, int | None] | None) -> None:
    assert Host.parse(text) == host


@given(st.text(max_size=30))
def test_no_text_breaks_the_parsers(text: str) -> None:
    Host.parse(text)
    Origin.parse(text)
    Origin.parse(f"http://{text}")


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("HTTPS://App.Example:443/", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("https://app.example:8443/", "https://app.example:8443"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origins_are_written_as_browsers_do(text: str, origin: str) -> None:
    assert ServeSettings(origins=(text,)).origins == (origin,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("app.example", "did you mean https://app.example"),
        ("localhost:3000", "did you mean https://localhost:3000 or http://localhost:3000?"),
        ("https://app.example/page", "no path"),
        ("https://app.example?x", "no path"),
        ("https://user@app.example", "has a scheme, a host"),
        ("https://", "has a scheme, a host"),
        ("https://app.example:99999", "has a scheme, a host"),
        ("https://*.app.example", "a * stands alone"),
        ("null", "every page in a sandbox"),
        ("wss://app.example", "a page's begins with https://"),
        ("file://localhost", "browsers call the origin of files null"),
        ("", "has a scheme"),
        (" https://app.example", "has a scheme"),
    ],
)
def test_origins_that_no_page_has(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as refused:
        parse_origin(text)
    assert repr(text) in str(refused.value)


def test_all_pages_only_with_a_token() -> None:
    with pytest.raises(ValueError, match="lets every web page use the server; set a token"):
        ServeSettings(origins=("*",))
    assert ServeSettings(origins=("*",), token="secret").origins == ("*",)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Video.Example.", "video.example"),
        ("*.Example", "*.example"),
        ("*", "*"),
        ("10.0.0.5", "10.0.0.5"),
        ("::1", "::1"),
        ("[2001:db8::0]", "2001:db8::"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_allowed_hosts_are_normalised(text: str, name: str) -> None:
    assert ServeSettings(allowed_hosts=(text,)).allowed_hosts == (name,)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "https://video.example",
            "video.example:8000",
            "video.example/live",
            "video example",
            "*.",
            "**",
        ),
        *("*.*.example", "a.*.example", "*example.com", "*.10.0.0.1", "[::1]:80", ".example"),
    ],
)
def test_hosts_that_nobody_can_ask_for(text: str) -> None:
    with pytest.raises(ValueError, match="no host is named by") as refused:
        parse_allowed_host(text)
    assert repr(text) in str(refused.value)


OWN = socket.gethostname().lower()


@pytest.mark.parametrize(
    ("reach", "names", "yes", "no"),
    [
        (
            "loopback",
            (),
            ["localhost", "127.0.0.1", "127.0.0.9", "[::1]"],
            ["10.0.0.5", "evil.example", OWN, ""],
        ),
        (
            "loopback",
            ("video.example",),
            ["localhost", "video.example:8443"],
            ["a.video.example", "10.0.0.5"],
        ),
        ("loopback", ("*.example",), ["a.example", "a.b.example"], ["example", "xexample", "evil.com"]),
        ("open", (), ["10.0.0.5", "[2001:db8::1]", "localhost", OWN], ["evil.example", ""]),
        ("open", ("video.example",), ["10.0.0.5", "video.example"], ["evil.example"]),
        ("named", (), ["10.0.0.5", "any.example", ""], []),
        ("named", ("video.example",), ["10.0.0.5", "video.example", OWN], ["any.example", ""]),
        ("loopback", ("*",), ["any.example", "10.0.0.5", ""], []),
    ],
)
def test_what_a_server_answers_to(
    reach: Reach, names: tuple[str, ...], yes: list[str], no: list[str]
) -> None:
    hosts = AllowedHosts(names, reach)
    assert [text for text in yes if not hosts.answer_to(Host.parse(text))] == []
    assert [text for text in no if hosts.answer_to(Host.parse(text))] == []


def test_the_names_of_this_machine() -> None:
    assert OWN in own_names()
    assert f"{OWN.partition('.')[0]}.local" in own_names()


@pytest.mark.parametrize(
    ("origin", "scheme", "host", "own"),
    [
        ("http://a.example", "http", "a.example", True),
        ("http://a.example:80", "http", "a.example", True),
        ("https://a.example", "http", "a.example", True),  # a proxy speaks TLS for the server
        ("https://a.example", "https", "a.example:443", True),
        ("http://a.example", "https", "a.example", False),  # another program of that machine
        ("http://a.example", "wss", "a.example", False),
        ("https://A.example:8443/", "http", "a.EXAMPLE:8443", True),
        ("https://a.example:8443", "http", "a.example", False),
        ("http://a.example:8000", "http", "a.example:8001", False),
        ("http://b.example", "http", "a.example", False),
        ("ftp://a.example", "http", "a.example", False),
    ],
)
def test_a_page_of_the_server_itself(origin: str, scheme: str, host: str, own: bool) -> None:
    page, asked = Origin.parse(origin), Host.parse(host)
    assert page is not None
    assert asked is not None
    assert is_own_origin(page, scheme, asked) == own


def ask(server: Running, **headers: str) -> tuple[int, str | None]:
    """Status and code of the reply to a new session."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    response = server.http.post("/v1/sessions", json={"prompt": PROMPT}, headers=given)
    if response.status_code == 201:
        server.delete(response.json())
        return 201, None
    return response.status_code, error_of(response, response.status_code)["code"]


FOREIGN_HOST, FOREIGN_PAGE, TAKEN = (403, "forbidden_host"), (403, "forbidden_origin"), (201, None)


def test_a_name_made_to_point_here(serve: Callable[..., Running]) -> None:
    """DNS rebinding: to the browser the page and the server are of one origin."""
    rebound = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
    open_server = serve(loopback=False)  # as with --insecure
    assert ask(open_server, **rebound) == FOREIGN_HOST
    assert ask(open_server, Host="10.0.0.5:8000", Origin="http://10.0.0.5:8000") == TAKEN
    response = open_server.http.get("/v1/model", headers={"Host": "evil.example"})
    assert "--allowed-host evil.example" in error_of(response, 403)["message"]
    wire = socket.create_connection(("127.0.0.1", int(open_server.url.rpartition(":")[2])))
    page = OriginHeader("http://evil.example:8000")
    with pytest.raises(InvalidStatus) as refused, wire:
        connect("ws://evil.example:8000/v1/sessions/x/ws", sock=wire, origin=page)
    assert refused.value.response.status_code == 403
    named = serve(loopback=False, allowed_hosts=("evil.example",))
    assert ask(named, **rebound) == TAKEN


def test_a_proxy_that_keeps_the_host(serve: Callable[..., Running]) -> None:
    server = serve(allowed_hosts=("video.example",))
    assert ask(server, Host="video.example", Origin="https://video.example") == TAKEN
    assert ask(server, Host="video.example", Origin="https://evil.example") == FOREIGN_PAGE
    assert ask(server, Host="other.example", Origin="https://other.example") == FOREIGN_HOST


def test_a_proxy_that_rewrites_the_host(serve: Callable[..., Running]) -> None:
    page: dict[str, Any] = {"Origin": "https://video.example", "X_Forwarded_Host": "video.example"}
    server = serve(allowed_hosts=("video.example",), trusted_proxies=("127.0.0.1",))
    assert ask(server, **page) == TAKEN
    assert ask(server, **page, X_Forwarded_Proto="https") == TAKEN
    assert (
        ask(server, **{**page, "Origin": "http://video.example"}, X_Forwarded_Proto="https") == FOREIGN_PAGE
    )
    assert ask(server, **{**page, "X_Forwarded_Host": "evil.example, video.example"}) == TAKEN
    assert ask(server, **{**page, "X_Forwarded_Host": "video.example, evil.example"}) == FOREIGN_HOST
    assert ask(server, **{**page, "Origin": "https://evil.example"}) == FOREIGN_PAGE
    # A proxy that keeps Host and passes on a header that the page wrote: both must be right.
    assert ask(server, Host="evil.example", X_Forwarded_Host="localhost") == FOREIGN_HOST
    assert ask(serve(allowed_hosts=("video.example",)), **page) == FOREIGN_PAGE  # nobody is trusted there


def test_origins_with_a_port_or_capitals(serve: Callable[..., Running]) -> None:
    server = serve(origins=("HTTPS://App.Example:443/",))
    created = server.create()
    response = server.http.get("/v1/model", headers={"Origin": "https://app.example"})
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    url = f"{server.url.replace('http', 'ws')}/v1/sessions/{created['id']}/ws?token={created['token']}"
    with connect(url, origin=OriginHeader("https://app.example")) as viewer:
        assert read(viewer).type == "hello"
    assert ask(server, Origin="https://app.example:444") == FOREIGN_PAGE


def test_every_page_may_ask_a_server_with_a_token(serve: Callable[..., Running]) -> None:
    server = serve(origins=("*",), token="secret")
    response = server.http.get("/v1/model", headers={"Origin": "https://any.example"})
    assert error_of(response, 401)["code"] == "unauthorized"
    assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("text", "path"),
    [("/live", "/live"), ("/live/", "/live"), ("live", "/live"), ("/", ""), ("", ""), ("/a/b-c", "/a/b-c")],
)
def test_root_paths(text: str, path: str) -> None:
    assert parse_root_path(text) == path


@pytest.mark.parametrize(
    "text", ["https://x/live", "/a b", "/a//b", "/../etc", "/live?x", '/"><script>', "/%2e"]
)
def test_root_paths_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no path is named by"):
        ServeSettings(root_path=text)


@pytest.mark.parametrize("text", ["/v1", "/health/live", "/docs", "/static"])
def test_root_paths_that_hide_the_servers_own(text: str) -> None:
    with pytest.raises(ValueError, match="begins like one of the server's own paths"):
        parse_root_path(text)
