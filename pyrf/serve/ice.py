"""What the command line says of WebRTC's network: STUN and TURN servers, ports, the announced address."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import unquote

from pyrf.protocol import IceServer

_PLACE = r"[^\s:/?@]+(:(?P<port>[0-9]{1,5}))?"
_STUN = re.compile(rf"stun:{_PLACE}")
_TURN = re.compile(
    rf"(?P<scheme>turns?:)(?P<user>[^\s:/@]+):(?P<password>[^\s@]+)@(?P<place>{_PLACE}(\?transport=(udp|tcp))?)"
)


def parse_ice_server(text: str) -> IceServer:
    """A server from `stun:host:port` or `turn:user:password@host:port`.

    The port may be left out; `turns:` is TURN over TLS, `?transport=tcp` may follow `turn:`. A `:` in the
    user's name, an `@` or `%` in either are percent-encoded.

    Raises:
        ValueError: when it is neither; the message does not tell the password.
    """
    match = _STUN.fullmatch(text) or _TURN.fullmatch(text)
    is_tls_over_udp = text.startswith("turns:") and text.endswith("=udp")
    if match is None or is_tls_over_udp or not 0 < int(match["port"] or 1) < 2**16:
        shown = re.sub(r":.*@", ":...@", text)
        raise ValueError(
            f"no STUN or TURN server is named by {shown!r}; expected stun:HOST[:PORT] or "
            "turn:USER:PASSWORD@HOST[:PORT][?transport=tcp], or turns: for TURN over TLS"
        )
    if match.re is _STUN:
        return IceServer(urls=text)
    return IceServer(
        urls=match["scheme"] + match["place"],
        username=unquote(match["user"]),
        credential=unquote(match["password"]),
    )


def parse_ports(text: str) -> range:
    """UDP ports from `LO-HI`, both included.

    Raises:
        ValueError: when it is no such range.
    """
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if match is None or not 1024 <= int(match[1]) <= int(match[2]) < 2**16:
        raise ValueError(f"--webrtc-ports is LO-HI, two ports in 1024..65535, as 50000-50100; got {text!r}")
    return range(int(match[1]), int(match[2]) + 1)


def check_nat_address(text: str) -> None:
    """Refuse what viewers could not send to.

    Raises:
        ValueError: when it is no address of a machine.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"--nat-address is an IP address, and no name; got {text!r}") from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"--nat-address is the address that viewers reach; nobody reaches {text}")
