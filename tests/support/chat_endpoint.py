"""A real HTTP server that speaks the two calls of an OpenAI-compatible API, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, Any], tuple[int, bytes]]
"""Of a path and a body: a status and the bytes of the reply."""


@dataclass
class Endpoint:
    """What is asked of it.

    Attributes:
        asked: path, headers and body of each call.
        held: cleared while calls are to get no answer.
    """

    url: str
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)


def as_chat(text: str) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def as_verdict(flagged: bool, **categories: bool) -> tuple[int, bytes]:
    return 200, json.dumps({"results": [{"flagged": flagged, "categories": categories}]}).encode()


@contextmanager
def chat_endpoint(answer: Answer) -> Iterator[Endpoint]:
    """A server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.asked.append((self.path, dict(self.headers), body))
            endpoint.held.wait(60)
            status, content = answer(self.path, body)
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", content.decode())
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                self.wfile.write(content)
            except OSError:
                return  # the other side had enough

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    endpoint.held.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.held.set()
        server.shutdown()
        thread.join()
        server.server_close()
