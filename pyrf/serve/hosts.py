"""Where a server stands on the web: its names and path, and the web origins that may use it."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple, Self

Reach = Literal["loopback", "open", "named"]
"""What a server answers to beside the names of `--allowed-host`: `loopback` to localhost and its addresses,
`open` to any address and this machine's own names, `named` (with a token) to any name if none is given."""

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s\[\]:/?#@\\%,]+)(?::(\d{0,5}))?")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_OWN = {"v1", "health", "metrics", "static", "static-offline-docs", "docs", "openapi.json"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NEVER_ORIGINS = {"ws": "http", "wss": "https"}


class Host(NamedTuple):
    """A host as a URL names it: in small letters, addresses in their shortest form, no dot at the end."""

    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """A Host header; None when it is none."""
        match = _HOST.fullmatch(text)
        if match is None:
            return None
        name = _normal_name(match[1])
        port = int(match[2]) if match[2] else None
        return None if name is None or (port is not None and port > 65535) else cls(name, port)


class Origin(NamedTuple):
    """A web origin; the port is the default one where none is named."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """As a browser writes it."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port in (None, _DEFAULT_PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{name}{port}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """An Origin header; None when it names no page's host, as `null`."""
        match = _ORIGIN.fullmatch(text)
        host = Host.parse(match[2]) if match and match[3] in ("", "/") else None
        if match is None or host is None:
            return None
        scheme = match[1].lower()
        return cls(scheme, host.name, _DEFAULT_PORTS.get(scheme) if host.port is None else host.port)


def parse_origin(text: str) -> str:
    """What `--origin` names, as browsers write it: `HTTPS://App.Example:443/` is `https://app.example`.

    Raises:
        ValueError: when no page could have it.
    """
    if text == "*":
        return text
    origin = Origin.parse(text)
    if origin is not None and "*" not in text and origin.scheme not in (*_NEVER_ORIGINS, "file"):
        return str(origin)
    if "*" in text:
        why = "a * stands alone, for all pages, or not at all"
    elif text.lower() == "null":
        why = "every page in a sandbox has that origin"
    elif origin is not None and origin.scheme in _NEVER_ORIGINS:
        why = f"a page's begins with {_NEVER_ORIGINS[origin.scheme]}://"
    elif origin is not None:
        why = "browsers call the origin of files null"
    elif Host.parse(text):
        why = f"did you mean https://{text} or http://{text}?"
    else:
        why = "it has a scheme, a host and at most a port, and no path"
    raise ValueError(f"no web origin is named by {text!r}; expected the like of https://app.example: {why}")


def parse_allowed_host(text: str) -> str:
    """What `--allowed-host` names, normalised: a name, an address, `*.example.com` for all below it, or `*`.

    Raises:
        ValueError: when no Host header could match.
    """
    if text == "*":
        return text
    below = "*." if text.startswith("*.") else ""
    bare = text[len(below) :]
    host = Host.parse(f"[{bare}]" if _is_ipv6(bare) else bare)
    if host is None or host.port is not None or "*" in bare or (below and _address_of(host.name)):
        raise ValueError(
            f"no host is named by {text!r}; expected a name or an address, without scheme, port and path, "
            "*.example.com for all names below it, or * for every name"
        )
    return below + host.name


def parse_root_path(text: str) -> str:
    """What `--root-path` names, without a slash at its end; "" is the root itself.

    Raises:
        ValueError: when it is no path, or would hide one of the server's own.
    """
    path = "/" + text.strip("/") if text.strip("/") else ""
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"no path is named by {text!r}; expected the like of /live, of letters, digits and . _ ~ -"
        )
    if path and path.split("/")[1] in _OWN:
        raise ValueError(f"{path} begins like one of the server's own paths; choose another, such as /live")
    return path


@dataclass(frozen=True)
class AllowedHosts:
    """Which Host headers are answered.

    A web page can make its own name point to this machine (DNS rebinding). The browser then takes the
    server's replies for the page's own; only the Host header tells. An address cannot be made to point
    elsewhere.

    Args:
        names: as `parse_allowed_host` returns them.
        reach: what else is answered.
    """

    names: tuple[str, ...]
    reach: Reach

    def answer_to(self, host: Host | None) -> bool:
        """Whether this Host is the server's; None is one that is missing, or is no host at all."""
        if "*" in self.names or (self.reach == "named" and not self.names):
            return True
        if host is None:
            return False
        address = _address_of(host.name)
        if address is not None and (self.reach != "loopback" or address.is_loopback):
            return True
        if host.name == "localhost" or host.name in self.names:
            return True
        if self.reach != "loopback" and host.name in own_names():
            return True
        return any(host.name.endswith(name[1:]) for name in self.names if name.startswith("*."))


def own_names() -> set[str]:
    """What this machine calls itself, also on a local network (`.local`). The name service is not asked."""
    name = _normal_name(socket.gethostname())
    return set() if name is None else {name, f"{name.partition('.')[0]}.local"}


def is_own_origin(origin: Origin, scheme: str, host: Host) -> bool:
    """Whether a page comes from the server itself.

    Args:
        origin: the page's.
        scheme: of the request. Where it is `http` a proxy may speak TLS for the server, so a page that came
            by `https` is taken too.
        host: what the request calls the server.
    """
    if origin.scheme not in _DEFAULT_PORTS or (scheme in ("https", "wss") and origin.scheme != "https"):
        return False
    port = _DEFAULT_PORTS[origin.scheme] if host.port is None else host.port
    return (origin.host, origin.port) == (host.name, port)


def _normal_name(text: str) -> str | None:
    """A name or address in the one form in which it is compared; None when it is neither."""
    if text.startswith("["):
        return str(IPv6Address(text[1:-1])) if _is_ipv6(text[1:-1]) else None
    name = text.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return None
    return name if len(name) < 254 and _NAME.fullmatch(name) else None


def _is_ipv6(text: str) -> bool:
    address = _address_of(text)
    return isinstance(address, IPv6Address)


def _address_of(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
