"""Where the operator lets sessions be sent: addresses that begin with one that was named, and one folder.

A viewer names the target. So an address is read here by strict rules, and whatever two readers of addresses
could understand differently is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PORTS = {"rtmp": 1935, "rtmps": 443, "srt": None, "udp": None}
"""The kinds of addresses, and the ports that they have without naming one."""
QUERIES = {"srt": {"streamid", "passphrase", "latency"}, "udp": set[str]()}
"""What a viewer may ask for in the query of an address; others would change whom FFmpeg speaks to."""
FILES = (".mp4", ".mov", ".mkv", ".webm")
LONGEST = 2000
"""Characters of a target."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.(mp4|mov|mkv|webm)")
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z]{3,5})://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:(?P<port>\d{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~/=+,@!$&*-]*)?(\?(?P<query>[A-Za-z0-9._~/=+,:@!$&*-]+))?"
)


@dataclass(frozen=True)
class Address:
    """An address that video can be sent to; `port` is None where there is no usual one."""

    scheme: str
    host: str
    port: int | None
    path: str
    query: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address, without a user or password in it.

        Raises:
            ValueError: when it is none; the message does not tell it, as a key may stand in it.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or match["scheme"] not in PORTS or len(text) > LONGEST:
            kinds = ", ".join(f"{name}://" for name in PORTS)
            raise ValueError(f"it is no address that video is sent to; write {kinds}, HOST, :PORT and a path")
        path = match["path"] or ""
        if {".", ".."} & set(path.split("/")):
            raise ValueError("the path of the address has . or .. in it; write it out")
        port = int(match["port"]) if match["port"] else PORTS[match["scheme"]]
        return cls(match["scheme"], match["host"].lower(), port, path, match["query"] or "")

    def allows(self, other: Address) -> bool:
        """Whether another one begins with this: the same place, and a path at or below this one's."""
        if (self.scheme, self.host, self.port) != (other.scheme, other.host, other.port):
            return False
        above = self.path.rstrip("/")
        if other.path != self.path and not f"{other.path}/".startswith(f"{above}/"):
            return False
        if other.query == self.query or self.query:
            return other.query == self.query
        asked = {part.partition("=")[0] for part in other.query.split("&")}
        return asked <= QUERIES.get(self.scheme, asked)


def parse_allowed(text: str) -> Address:
    """What `--allow-output` names.

    Raises:
        ValueError: when it is no address, or has no port where it needs one.
    """
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise ValueError(f"--allow-output {text!r}: {error}") from None
    if address.port is None:
        raise ValueError(f"--allow-output {text!r} has no port; write {address.scheme}://{address.host}:PORT")
    return address


def find_target(target: str, allowed: Iterable[Address], folder: str | None) -> str | Path:
    """The address or the file that a target means, where the operator lets it be.

    Args:
        target: an address, or the plain name of a file.
        allowed: what addresses may begin with.
        folder: of files; None: there are none.

    Raises:
        ValueError: when it is neither, or not allowed.
    """
    if "://" in target:
        address = Address.parse(target)
        if not any(one.allows(address) for one in allowed):
            raise ValueError("this server sends to no such address; ask whoever runs it for --allow-output")
        return target
    if folder is None:
        raise ValueError("this server writes no files; give an address")
    if not _NAME.fullmatch(target):
        raise ValueError(
            "a file is named by letters, digits, - and _, without a folder, and ends in " + ", ".join(FILES)
        )
    return Path(folder) / target
