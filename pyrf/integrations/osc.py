"""A stream that is steered by OSC messages (Open Sound Control 1.0 over UDP), as TouchDesigner sends them."""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from pyrf.bundle.adapter_file import check_strength
from pyrf.checks import is_number
from pyrf.config import MAX_SEED
from pyrf.extras import needs
from pyrf.streaming.change import check_over

with needs("osc", "OSC"):
    from pythonosc.osc_message import OscMessage, ParseError
    from pythonosc.parsing import osc_types

ROOT = "/pyrf/"
DEFAULT_PORT = 9000
MAX_DATAGRAM_BYTES = 8192
"""Of a packet; a larger one is refused."""
MAX_ELEMENTS = 64
"""Messages of a bundle."""
COMPLAINT_S = 1.0
"""Seconds between two complaints; what is wrong in between is not told."""
POLL_S = 0.1
TYPES = frozenset("ifhdsTF")
"""Of arguments: numbers, texts, true and false."""
_BUNDLE, _BUNDLE_HEADER = b"#bundle\0", 16


@dataclass
class Steering:
    """What was asked for since it was last taken; None and empty: nothing.

    Attributes:
        prompt: a text, and the seconds in which it takes the place of the last one.
        adapters: strengths by the adapters' names.
        paused: whether to pause, or to go on.
        seed: of a stream to begin in place of this one.
        stop: whether to end.
    """

    prompt: tuple[str, float] | None = None
    adapters: dict[str, float] = field(default_factory=dict)
    paused: bool | None = None
    seed: int | None = None
    stop: bool = False


class Steerable(Protocol):
    """What a `Steering` acts on, such as `pyrf.Stream`."""

    def set_prompt(self, prompt: str, *, over: float = 0.0) -> object:
        """Change the prompt; a ValueError says what is wrong with it."""
        ...

    def set_adapters(self, strengths: Mapping[str, float]) -> object:
        """Change strengths of adapters; a ValueError says what is wrong with them."""
        ...


def _tell(complaint: str) -> None:
    logging.getLogger("pyrf.osc").warning(complaint)


class OscListener:
    """Listens on a UDP port, in a thread of its own, and keeps the newest wish of each kind.

    A context manager. A message that repeats the last one of its address changes nothing, so that a sender
    may send all the time. Nothing that is sent raises: what is wrong is complained of, once a second at most.

    Args:
        port: to listen on; 0 takes a free one.
        host: this machine's address to listen on. OSC knows no password: who reaches it steers.
        adapters: names that messages may give; `adapters` may be set until the block begins.
        complain: called with a line for people, from any thread; by default the logger `pyrf.osc`.

    Attributes:
        address: the host and port that it listens on.

    Raises:
        MissingExtraError: when python-osc is not installed.
        ValueError: when the port cannot be had.
    """

    def __init__(
        self,
        port: int = DEFAULT_PORT,
        host: str = "127.0.0.1",
        *,
        adapters: Collection[str] = (),
        complain: Callable[[str], None] = _tell,
    ) -> None:
        try:
            self._server = _UdpServer(host, port, self._take_datagram)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"cannot listen for OSC on {host}:{port}: {reason}; choose another") from error
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]  # IPv6 has four
        self.adapters = adapters
        self._complain, self._quiet_until = complain, -math.inf
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._asked, self._last = Steering(), dict[str, list[Any]]()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.address[0]).is_loopback

    def take(self) -> Steering:
        """What was asked for since the last call."""
        with self._changed:
            asked, self._asked = self._asked, Steering()
        return asked

    def wait(self, seconds: float | None = None) -> None:
        """Return when something was asked for that was not taken, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked != Steering(), seconds)

    def steer(self, target: Steerable) -> Steering:
        """`take`, and change the prompt and the adapters of a stream.

        What it refuses is complained of, and is left out of what is returned.
        """
        asked = self.take()
        try:
            if asked.prompt is not None:
                target.set_prompt(asked.prompt[0], over=asked.prompt[1])
        except ValueError as error:
            self.complain(str(error))
            asked.prompt = None
        try:
            if asked.adapters:
                target.set_adapters(asked.adapters)
        except ValueError as error:
            self.complain(str(error))
            asked.adapters = {}
        return asked

    def complain(self, text: str) -> None:
        """Tell people what is wrong, unless they have just been told of something."""
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + COMPLAINT_S
            self._complain(text)

    def _take_datagram(self, data: bytes) -> None:
        try:
            for message in _messages(data):
                self._take_message(message)
        except ValueError as error:
            self.complain(str(error))

    def _take_message(self, data: bytes) -> None:
        address, given = _parsed(data)
        if not address.startswith(ROOT):
            raise ValueError(f"{address:.80}: no such address; those of pyrf begin with {ROOT}")
        name, with_name, rest = address.removeprefix(ROOT).partition("/")
        read = READERS.get(name)
        if read is None or bool(with_name) != (name == "adapter"):
            known = ", ".join(ROOT + (f"{name}/NAME" if name == "adapter" else name) for name in READERS)
            raise ValueError(f"{address:.80}: no such address; there are {known}")
        if name == "adapter" and rest not in self.adapters:
            names = ", ".join(sorted(self.adapters)) or "none; load the model with --lora"
            raise ValueError(f"{address:.80}: no such adapter; there are: {names}")
        try:
            value = read(given, rest)
        except ValueError as error:
            raise ValueError(f"{address}: {error}") from None
        with self._changed:
            if self._last.get(address) == given:
                return
            self._last[address] = given
            if name == "adapter":
                self._asked.adapters[rest] = value
            else:
                setattr(self._asked, {"pause": "paused"}.get(name, name), value)
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of the port."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="pyrf-osc", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _UdpServer(socketserver.UDPServer):
    """Gives each datagram to a function, one after the other."""

    max_packet_size = MAX_DATAGRAM_BYTES + 1

    def __init__(self, host: str, port: int, take: Callable[[bytes], None]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._take = take
        super().__init__((host, port), socketserver.DatagramRequestHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._take(request[0])


def _messages(data: bytes) -> Iterator[bytes]:
    """The messages of a packet: one, or those of a bundle, which act at once whatever its time.

    python-osc's own reader of bundles does not end for some broken ones.

    Raises:
        ValueError: when it is no packet of OSC, or too large a one.
    """
    if len(data) > MAX_DATAGRAM_BYTES:
        raise ValueError(f"a packet has more than {MAX_DATAGRAM_BYTES} bytes; send less at once")
    if not data.startswith(_BUNDLE):
        yield data
        return
    at = _BUNDLE_HEADER
    for _ in range(MAX_ELEMENTS):
        if at >= len(data):
            return
        (size,) = struct.unpack_from(">i", data.ljust(at + 4, b"\0"), at)
        part = data[at + 4 : at + 4 + max(size, 0)]
        if size < 4 or len(part) < size:
            raise ValueError("a broken bundle came; is the sender's protocol OSC over UDP?")
        if part.startswith(_BUNDLE):
            raise ValueError("a bundle inside of a bundle came; send its messages in one")
        yield part
        at += 4 + size
    if at < len(data):
        raise ValueError(f"a bundle has more than {MAX_ELEMENTS} messages; send fewer at once")


def _parsed(data: bytes) -> tuple[str, list[Any]]:
    """Address and arguments of a message.

    Raises:
        ValueError: when it is none, or has arguments of other types.
    """
    try:
        if not data.startswith(b"/"):
            raise ParseError("it does not begin with an address")
        address, at = osc_types.get_string(data, 0)
        kinds = osc_types.get_string(data, at)[0].removeprefix(",") if data[at:] else ""
        if unknown := set(kinds) - TYPES:
            raise ValueError(
                f"{address:.80} has an argument of type {min(unknown)!r}; send numbers or a text"
            )
        return address, list(OscMessage(data).params)
    except (ParseError, osc_types.ParseError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"a packet is no message of OSC: {error!s:.80}") from error


def _prompt(given: list[Any], _: str) -> tuple[str, float]:
    if len(given) not in (1, 2) or not isinstance(given[0], str) or not given[0].strip():
        raise ValueError(f"takes a text, and seconds of a transition if you like, got {given!r:.80}")
    over = given[1] if len(given) == 2 else 0.0
    check_over(over)
    return given[0], float(over)


def _strength(given: list[Any], name: str) -> float:
    return check_strength(name, _one_number(given))


def _seed(given: list[Any], _: str) -> int:
    number = _one_number(given)
    if not 0 <= number <= MAX_SEED or number != int(number):
        raise ValueError(f"takes a whole number of 0..{MAX_SEED}, got {number:g}")
    return int(number)


def _switch(given: list[Any], _: str) -> bool:
    """True for no argument, true, or a number that is not 0."""
    if not given:
        return True
    if len(given) == 1 and isinstance(given[0], bool):
        return given[0]
    return _one_number(given) != 0


def _one_number(given: list[Any]) -> float:
    if len(given) != 1 or not is_number(given[0]):
        raise ValueError(f"takes one number, got {given!r:.80}")
    return given[0]


READERS: Mapping[str, Callable[[list[Any], str], Any]] = {
    "prompt": _prompt,
    "adapter": _strength,
    "pause": _switch,
    "seed": _seed,
    "stop": _switch,
}
"""By the part of an address behind `/pyrf/`: what its arguments mean."""
