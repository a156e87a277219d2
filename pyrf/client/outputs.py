"""Where a session is to be watched, and where the server sends it."""

from __future__ import annotations

import re

from pyrf.client.errors import BadArgumentError, BadReplyError
from pyrf.client.http import HttpCalls, request_body
from pyrf.protocol import OutputInfo, OutputList, OutputRequest, SessionCreated

_WATCH = re.compile(r"/v1/sessions/[A-Za-z0-9_.-]{1,200}/watch/[A-Za-z0-9_-]{1,200}")
_OUTPUT = re.compile(r"[A-Za-z0-9_-]{1,200}")


class AsyncLeaving:
    """What an `AsyncSession` offers to others than its viewer."""

    created: SessionCreated
    _url: str
    _calls: HttpCalls

    @property
    def _outputs(self) -> str:
        return f"/v1/sessions/{self.created.id}/outputs"

    def _watch(self, end: str) -> str:
        if not _WATCH.fullmatch(self.created.watch):
            raise BadReplyError(f"{self._calls.place} gave no address to watch the session at")
        return f"{self._url}{self.created.watch}{end}"

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
        return await self._calls.call(OutputInfo, "POST", self._outputs, body, self.created.token)

    async def outputs(self) -> list[OutputInfo]:
        """Where the server sends this session, the last ended outputs included."""
        token = self.created.token
        reply = await self._calls.call(OutputList, "GET", self._outputs, None, token, repeatable=True)
        return reply.outputs

    async def stop_output(self, id: str) -> None:
        """End an output; what was sent is finished.

        Raises:
            RefusedError: when there is no such output.
        """
        if not _OUTPUT.fullmatch(id):
            raise BadArgumentError(f"an output's id is the one that send_to gave, got {id!r:.80}")
        await self._calls.send("DELETE", f"{self._outputs}/{id}", token=self.created.token)
