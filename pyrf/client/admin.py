"""Looking after a server: its sessions, and whether it takes new ones."""

from __future__ import annotations

import re
from typing import Self

from pyrf.client.address import Verify, parse_address
from pyrf.client.errors import BadArgumentError
from pyrf.client.http import HttpCalls
from pyrf.client.synchronous import EventLoop
from pyrf.protocol import AdminSessions

_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Admin:
    """A server to look after, with the key of an admin. Any thread may call it.

    Args:
        url, timeout, patience, verify: as of `Client`.
        token: a key whose rights include `admin`.

    Raises:
        ClientError: here and in all calls below, of the kind that happened.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float = 30.0,
        patience: float = 10.0,
        verify: Verify = True,
    ) -> None:
        async def make() -> HttpCalls:
            return HttpCalls(parse_address(url.rstrip("/"), verify), token, timeout, patience)

        self.url, self._loop = url, EventLoop()
        try:
            self._calls = self._loop.run(make)
        except BaseException:
            self._loop.close()
            raise

    def __repr__(self) -> str:
        return f"<Admin of {self.url}>"

    def overview(self) -> AdminSessions:
        """All live sessions, whoever began them, and whether the server takes new ones."""
        return self._loop.run(self._ask, "GET", "sessions")

    def end(self, id: str) -> None:
        """End a session of whomever.

        Raises:
            RefusedError: 404 when there is no such session.
        """
        if not _ID.fullmatch(id):
            raise BadArgumentError(f"{id!r:.80} is no id of a session; `overview` lists them")
        self._loop.run(self._calls.send, "DELETE", f"/v1/admin/sessions/{id}", repeatable=False)

    def drain(self) -> AdminSessions:
        """Let the server take no new sessions; those that run go on."""
        return self._loop.run(self._ask, "POST", "drain")

    def undrain(self) -> AdminSessions:
        """Let the server take new sessions again."""
        return self._loop.run(self._ask, "POST", "undrain")

    async def _ask(self, method: str, path: str) -> AdminSessions:
        return await self._calls.call(AdminSessions, method, f"/v1/admin/{path}", repeatable=True)

    def close(self) -> None:
        """Close the connections."""
        self._loop.run(self._calls.aclose)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
