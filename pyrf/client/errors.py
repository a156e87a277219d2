"""What can go wrong: every failure of the client is a `ClientError`, whose cause is the library's own."""

from __future__ import annotations

from pyrf.protocol import ErrorDetail


class ClientError(Exception):
    """A call of the client failed. All its other errors are of this kind; each can be copied and pickled."""


class BadArgumentError(ClientError, ValueError):
    """An address, a token or a request that no server could take; nothing was sent."""


class UnreachableError(ClientError, ConnectionError):
    """The server was not reached, or the connection broke before its reply was whole.

    Of a request that is not sure to be safe to repeat, nobody knows whether the server has done it.
    """


class BadReplyError(ClientError):
    """What answered does not speak pyrf's protocol: another server, a proxy's page, or a broken reply."""


class RefusedError(ClientError):
    """The server refused a request.

    Attributes:
        status: of the HTTP reply.
        code: of the error, see docs/serving.md.
        retry_after: seconds after which the same may succeed, if at all.
    """

    def __init__(self, status: int, detail: ErrorDetail) -> None:
        super().__init__(status, detail)
        self.status, self.code, self.retry_after = status, detail.code, detail.retry_after
        self._message = detail.message

    def __str__(self) -> str:
        return self._message


class SessionLostError(ClientError):
    """The session is gone, and the server did not say why."""
