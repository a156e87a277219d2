"""Where a session is to be watched, and where the server sends it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from pyrf.client.errors import BadArgumentError, BadReplyError
from pyrf.client.http import HttpCalls, request_body
from pyrf.protocol import OutputInfo, OutputList, OutputRequest, SessionCreated

_WATCH = re.compile(r"/v1/sessions/[A-Za-z0-9_.-]{1,200}/watch/[A-Za-z0-9_-]{1,200}")
_OUTPUT = re.compile(r"[A-Za-z0-9_-]{1,200}")


class AsyncLeaving(ABC):
    """What an `AsyncSession` offers to others than its viewer."""

    created: SessionCreated

    @property
    @abstractmethod
    def _server(self) -> tuple[str, HttpCalls]:
        """The server's URL, and its calls."""

    def _watch(self, end: str) -> str:
        url, calls = self._server
        if not _WATCH.fullmatch(self.created.watch):
            raise BadReplyError(f"{calls.place} gave no address to watch the session at")
        return f"{url}{self.created.watch}{end}"

    @property
    def watch_url(self) -> str:
        """Where others may watch this session, and do nothing else: JPEGs for an `<img>`.

        Raises:
            BadReplyError: when the server is older and has no such address.
        """
        return self._watch("/frames.mjpeg")

    @property
    def whep_url(self) -> str:
        """The same for players of WHEP."""
        return self._watch("/whep")

    @property
    def hls_url(self) -> str:
        """The same for players of HLS."""
        return self._watch("/hls/live.m3u8")

    async def send_to(self, target: str) -> OutputInfo:
        """Let the server send this session on, where its operator allows it.

        Args:
            target: `rtmp://`, `rtmps://`, `srt://` or `udp://`, or the name of a file in the server's folder.

        Raises:
            RefusedError: when it is not allowed, does not answer, or there are too many.
        """
        body = request_body(OutputRequest, target=target)
        path, calls = f"/v1/sessions/{self.created.id}/outputs", self._server[1]
        return await calls.call(OutputInfo, "POST", path, body, self.created.token)

    async def outputs(self) -> list[OutputInfo]:
        """Where the server sends this session, the last ended outputs included."""
        path, calls = f"/v1/sessions/{self.created.id}/outputs", self._server[1]
        return (await calls.call(OutputList, "GET", path, None, self.created.token, repeatable=True)).outputs

    async def stop_output(self, id: str) -> None:
        """End an output; what was sent is finished.

        Raises:
            RefusedError: when there is no such output.
        """
        if not _OUTPUT.fullmatch(id):
            raise BadArgumentError(f"an output's id is the one that send_to gave, got {id!r:.80}")
        path, calls = f"/v1/sessions/{self.created.id}/outputs/{id}", self._server[1]
        await calls.send("DELETE", path, token=self.created.token)
