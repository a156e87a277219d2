"""STUN and TURN servers, as `--ice-server` names them."""

from __future__ import annotations

import re
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
