"""Where a request comes from: the other end of its connection, or whom a trusted proxy names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

UNIX = "unix"
"""The address of whoever speaks through a Unix socket, as long as no proxy says more."""
SUBSCRIBER_BITS = 64
"""Of an IPv6 address: a subscriber has all addresses below these bits."""
ASKED_HOST = "pyrf.asked_host"
"""Where a scope keeps the host that a trusted proxy was asked for."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def client_address(scope: Mapping[str, Any]) -> str:
    """Who is counted for a request or a WebSocket: the key of quotas and rates, and the address in logs.

    Args:
        scope: ASGI's, once `Forwarded` has seen it.

    Returns:
        An IPv4 address, the /64 network of an IPv6 address, or "unix".
    """
    client = scope.get("client")
    if not client:
        return UNIX
    address = _parse(str(client[0]))
    if isinstance(address, IPv6Address) and not address.is_loopback:
        return str(IPv6Network((address, SUBSCRIBER_BITS), strict=False))
    return str(client[0] if address is None else address)


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """A proxy's address or network, as `--trusted-proxy` names it.

    Raises:
        ValueError: when it is neither, or everyone.
    """
    try:
        network = ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(
            f"a trusted proxy is named by its address or network, got {text!r}; "
            "expected the like of 10.0.0.5 or 10.0.0.0/24"
        ) from None
    if network.prefixlen == 0:
        raise ValueError(
            f"{text} trusts everyone, so that each client could choose its address; name the proxy's network"
        )
    return network


class Proxies:
    """The proxies that are believed.

    Args:
        networks: as `parse_network` reads them.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [parse_network(text) for text in networks]

    def trusts(self, address: str | None) -> bool:
        """Whether the other end of a connection is believed; None is that of a Unix socket, and it is."""
        if address is None:
            return True
        parsed = _parse(address)
        return parsed is not None and self._holds(parsed)

    def client(self, peer: str | None, hops: Iterable[str]) -> str | None:
        """The right-most hop that is no trusted proxy; what stands to its left anyone may have written.

        Args:
            peer: the other end of the connection, which is trusted.
            hops: as `X-Forwarded-For` lists them, the nearest last.

        Returns:
            An address. If all are trusted it is the left-most, and a hop that is no address ends the search.
        """
        found = peer
        for hop in reversed(list(hops)):
            address = _parse(hop)
            if address is None:
                break
            found = str(address)
            if not self._holds(address):
                break
        return found

    def _holds(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


class Forwarded:
    """Puts what trusted proxies say of a request into its scope: client, scheme, and the host that was asked.

    From anyone else the headers are ignored. `Forwarded` (RFC 7239) always is: a proxy that writes the
    `X-Forwarded-*` headers passes it on as the client sent it.
    """

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app, self._proxies = app, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            peer = scope["client"][0] if scope.get("client") else None
            if self._proxies.trusts(peer) and (peer is not None or _through_unix_socket(scope)):
                scope = self._outer(scope, peer)
        await self._app(scope, receive, send)

    def _outer(self, scope: Scope, peer: str | None) -> Scope:
        headers = Headers(scope=scope)
        changed: dict[str, Any] = {}
        if hops := _items(headers, "x-forwarded-for"):
            client = self._proxies.client(peer, hops)
            changed["client"] = None if client is None else (client, 0)
        if schemes := _items(headers, "x-forwarded-proto"):
            scheme = _SCHEMES.get(schemes[-1].lower())
            if scheme is not None:
                is_socket = scope["type"] == "websocket"
                changed["scheme"] = scheme.replace("http", "ws") if is_socket else scheme
        if hosts := _items(headers, "x-forwarded-host"):
            changed[ASKED_HOST] = hosts[-1]
        return {**scope, **changed}


def _through_unix_socket(scope: Scope) -> bool:
    server = scope.get("server")
    return server is not None and server[1] is None


def _items(headers: Headers, name: str) -> list[str]:
    """The items of a header that lists them, however many lines it has."""
    return [item for line in headers.getlist(name) for item in map(str.strip, line.split(",")) if item]


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address, which may have a port or a zone; of an IPv4 address in IPv6 dress the IPv4 address."""
    host = text.strip().strip('"')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
