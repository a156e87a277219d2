"""A network cable between a client and a server on this machine, for tests that pull it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Cable:
    """Carries TCP connections to a port; unplugged, it breaks them and takes no others.

    Attributes:
        port: its near end.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._plugged = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def unplug(self) -> None:
        with self._lock:
            self._plugged = False
            broken, self._open = self._open, set()
        for end in broken:
            _shut(end)

    def plug(self) -> None:
        with self._lock:
            self._plugged = True

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                with self._lock:
                    if not self._plugged:
                        near.close()
                        continue
                    far = socket.create_connection(("127.0.0.1", self._target))
                    self._open |= {near, far}
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        _shut(sink)
        with self._lock:
            self._open.discard(source)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
