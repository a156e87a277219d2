"""Servers that do not do what is expected: each connection gets the next of some scripts."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self

Script = bytes | Callable[[socket.socket], None]
"""What is sent after a request was read, or a function that does what it likes with the connection."""


def reply(body: Any, status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP reply, of JSON if the body is no bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kept = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
    kept |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in kept.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + content


def hang(connection: socket.socket) -> None:
    """Say nothing until the other side goes."""
    with suppress(OSError):
        while connection.recv(65536):
            pass


class Misbehaving:
    """A server of scripts; the last one is for all connections that follow.

    Attributes:
        url: its address.
        heads: of the requests, as they came.
    """

    def __init__(self, *scripts: Script, family: int = socket.AF_INET) -> None:
        self._scripts = list(scripts)
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{host if family == socket.AF_INET else f'[{host}]'}:{self.port}"
        self.heads: list[str] = []
        self.gone = threading.Semaphore(0)
        """Counts the connections that have ended."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                threading.Thread(target=self._play, args=(connection, script), daemon=True).start()

    def _play(self, connection: socket.socket, script: Script) -> None:
        with suppress(OSError), connection:
            self.heads.append(_read_request(connection))
            if callable(script):
                script(connection)
            else:
                connection.sendall(script)
                connection.shutdown(socket.SHUT_WR)
                hang(connection)
        self.gone.release()


def _read_request(connection: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return data.decode("latin-1")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(v) for n, _, v in _headers(head.decode("latin-1")) if n == "content-length"), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head.decode("latin-1")


def _headers(head: str) -> Iterable[tuple[str, str, str]]:
    for line in head.split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        yield name.lower(), colon, value.strip()
