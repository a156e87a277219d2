"""The network of a WebRTC connection: which sockets it opens, and how much it takes from strangers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, get_host_addresses, server_reflexive_candidate

from pyrf.serve.ice import parse_ports
from pyrf.serve.settings import ServeSettings

LOOPBACK = ("127.0.0.1", "::1")
MAX_SOURCES = 16
"""Addresses and ports that one connection hears connectivity checks from, each of which it answers."""
MAX_WAITING = 512
"""Datagrams that wait for a connection."""
PACKETS_PER_S = 1000
"""Datagrams that one connection takes in a second; a viewer sends some tens."""
BIND_TRIES = 32
"""Ports of the range that are tried for one socket."""
STUN_S = 5.0
"""Seconds that a STUN server has to answer."""


@dataclass(frozen=True)
class Network:
    """Where a server's WebRTC connections listen.

    Attributes:
        loopback: on this machine alone.
        ports: of UDP; None: any that is free.
        nat_address: that viewers reach this machine at, announced beside its own.
    """

    loopback: bool
    ports: range | None
    nat_address: str | None

    @classmethod
    def of(cls, settings: ServeSettings) -> Network:
        """As the settings say: a server on loopback opens no port to others, without a `nat_address`."""
        ports = parse_ports(settings.webrtc_ports) if settings.webrtc_ports else None
        return cls(settings.loopback and settings.nat_address is None, ports, settings.nat_address)

    def addresses(self) -> Sequence[str]:
        """This machine's, to listen at."""
        if self.loopback:
            return LOOPBACK
        return get_host_addresses(use_ipv4=True, use_ipv6=True)


class GuardedConnection(Connection):
    """An ICE agent with bounds. aiortc makes the agent; `guard` turns it into this."""

    _network: Network
    _sources: set[tuple[str, int]]
    _second: int
    _packets: int

    @classmethod
    def guard(cls, connection: Connection, network: Network) -> None:
        """Bound an agent that has not begun."""
        connection.__class__ = cls
        assert isinstance(connection, cls)
        connection._network, connection._sources = network, set()
        connection._second = connection._packets = 0

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 5
    ) -> list[Candidate]:
        """Open sockets, and say what they may be reached at; `addresses` are those of `Network` instead."""
        found: list[Candidate] = []
        asked = []
        for address in self._network.addresses():
            protocol = await self._bind(address)
            if protocol is None:
                continue
            self._protocols.append(protocol)
            host, port = protocol.transport.get_extra_info("sockname")[:2]
            protocol.local_candidate = _candidate("host", component, host, port)
            found.append(protocol.local_candidate)
            if self.stun_server and ":" not in host and not self._network.loopback:
                query = server_reflexive_candidate(protocol, self.stun_server)
                asked.append(asyncio.wait_for(query, STUN_S))
        nat = self._network.nat_address
        found += [
            _candidate("srflx", component, nat, near.port, near.host)
            for near in found
            if nat is not None and (":" in nat) == (":" in near.host)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found += [answer[0] for answer in answers if not isinstance(answer, BaseException)]
        if self.turn_server:
            found += await super().get_component_candidates(component, [], timeout)
        return found

    async def _bind(self, address: str) -> StunProtocol | None:
        """A socket at an address, at a port of the range; None when there is none."""
        ports = self._network.ports
        tries = [0] if ports is None else random.sample(ports, min(BIND_TRIES, len(ports)))
        for port in tries:
            try:
                _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: StunProtocol(self), local_addr=(address, port)
                )
            except OSError:
                continue
            return protocol
        return None

    def _is_within_rate(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._packets = second, 0
        self._packets += 1
        return self._packets <= PACKETS_PER_S

    def data_received(self, data: bytes, component: int) -> None:
        """A datagram that is no connectivity check; aiortc would stumble over an empty one."""
        if data and self._is_within_rate() and self._queue.qsize() < MAX_WAITING:
            super().data_received(data, component)

    def request_received(self, message: Any, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """A connectivity check. One that is signed is answered, and its source is checked in return."""
        if not self._is_within_rate():
            return
        if addr not in self._sources:
            if len(self._sources) >= MAX_SOURCES or not self._is_signed(message):
                return
            self._sources.add(addr)
        super().request_received(message, addr, protocol)

    def _is_signed(self, message: Any) -> bool:
        username = str(message.attributes.get("USERNAME", "")).partition(":")[0]
        if username != self.local_username or "MESSAGE-INTEGRITY" not in message.attributes:
            return False
        return bool(message.check_message_integrity(self.local_password.encode()))


def _candidate(
    kind: str, component: int, host: str, port: int, related_address: str | None = None
) -> Candidate:
    return Candidate(
        foundation=candidate_foundation(kind, "udp", host),
        component=component,
        transport="udp",
        priority=candidate_priority(component, kind),
        host=host,
        port=port,
        type=kind,
        related_address=related_address,
        related_port=None if related_address is None else port,
    )
