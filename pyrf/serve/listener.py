"""Accepts connections: as many as there may be, with a deadline from the first moment."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

from pyrf.serve.address import client_address
from pyrf.serve.connections import Connection, Connections

logger = logging.getLogger(__name__)

AT_ONCE = 32
"""Connections that are accepted before anything else has its turn."""
PAUSE_S = 0.5
"""Seconds before the next try when the system has no descriptor or memory for a connection."""
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

MakeProtocol = Callable[[Connection], asyncio.Protocol]


class Listener:
    """A listening socket of the event loop. `asyncio.Server` would know a connection after its TLS handshake.

    Args:
        sock: that listens.
        connections: all of the server, of which newcomers become part.
        make: the protocol that a new connection speaks.
        tls: for a socket that speaks TLS.
        handshake_s: seconds for the TLS handshake.
        is_counted: whether connections of an address are counted together; a proxy's are not.
    """

    def __init__(
        self,
        sock: socket.socket,
        connections: Connections,
        make: MakeProtocol,
        *,
        tls: ssl.SSLContext | None,
        handshake_s: float,
        is_counted: Callable[[str], bool],
    ) -> None:
        self._socket, self._connections, self._make = sock, connections, make
        self._tls, self._handshake_s = tls, handshake_s if tls is not None else None
        self._is_counted = is_counted
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self._later = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                peer, name = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._bear(error)
                return
            self._welcome(peer, name)

    def _bear(self, error: OSError) -> None:
        """Out of descriptors: let somebody go, or wait. The log limits how often it says so."""
        logger.warning("connections have to wait", extra={"reason": error.strerror})
        if not self._connections.make_room():
            self._loop.remove_reader(self._socket)
            self._later = self._loop.call_later(PAUSE_S, self._listen)

    def _welcome(self, peer: socket.socket, name: object) -> None:
        address = None
        if isinstance(name, tuple) and self._is_counted(name[0]):
            address = client_address({"client": name[:2]})
        connection = self._connections.make(address)
        if connection is None:
            peer.close()
            return
        held_s = self._connections.hold_back_s(connection)
        if held_s:  # it costs next to nothing before it has begun
            later = self._loop.call_later(held_s, self._begin, peer, connection)
            connection.abort = partial(_give_up, later, peer)
        else:
            self._begin(peer, connection)

    def _begin(self, peer: socket.socket, connection: Connection) -> None:
        task = self._loop.create_task(self._start(peer, connection))
        connection.abort = task.cancel  # until it has a protocol
        self._starting.add(task)
        task.add_done_callback(partial(self._started, peer, connection))

    async def _start(self, peer: socket.socket, connection: Connection) -> None:
        """Begin the connection: TLS first, if there is any."""
        await self._loop.connect_accepted_socket(
            lambda: self._make(connection), peer, ssl=self._tls, ssl_handshake_timeout=self._handshake_s
        )

    def _started(self, peer: socket.socket, connection: Connection, task: asyncio.Task[None]) -> None:
        """The connection stands or is over; a task that was cancelled may never have begun."""
        self._starting.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        self._connections.remove(connection)
        peer.close()
        if isinstance(error, OSError):
            logger.debug("a connection was not begun", extra={"reason": str(error)})
        elif error is not None:
            logger.error("a connection failed", exc_info=error)

    def close(self) -> None:
        """Accept no more."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._socket)
        for task in self._starting:
            task.cancel()
        self._socket.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: `uvicorn.Server` wants it of what listens."""


def _give_up(later: asyncio.TimerHandle, peer: socket.socket) -> None:
    later.cancel()
    peer.close()
