"""Requests to a server: what is safe is tried again, and whatever goes wrong is an error of the client."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from pyrf.client.address import Address
from pyrf.client.errors import BadArgumentError, BadReplyError, ClientError, RefusedError, UnreachableError
from pyrf.protocol import WARNINGS_HEADER, ErrorBody, ErrorDetail

R = TypeVar("R", bound=BaseModel)

RETRY_S = 0.2
"""Seconds before the second try; they double up to ten times as many."""
MAX_REPLY_BYTES = 2**20
"""Of a JSON reply; those of a server have some thousands."""
_WARNINGS = TypeAdapter(list[str])
_TOKEN = re.compile(r"[!-~]([ -~]*[!-~])?")
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def bearer(token: str | None) -> dict[str, str]:
    """The header that shows a token.

    Raises:
        BadArgumentError: when no header can hold it; the message does not tell it.
    """
    if token is None:
        return {}
    if not _TOKEN.fullmatch(token):
        raise BadArgumentError(
            "the token must be printable ASCII without spaces or line ends around it, and not empty; "
            "was it read from a file? then strip it"
        )
    return {"Authorization": f"Bearer {token}"}


def request_body(model: type[R], /, **fields: object) -> R:
    """The body of a request.

    Raises:
        BadArgumentError: when it is of a wrong type or out of range.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise BadArgumentError(f"{place}: {problem['msg']}, got {problem['input']!r:.80}") from error


class HttpCalls:
    """Calls of one server.

    Args:
        token: the server's, if it has one.
        timeout: seconds for a whole reply, or for each piece of a clip.
        patience: seconds in which a call is tried again.
    """

    def __init__(self, address: Address, token: str | None, timeout: float, patience: float) -> None:
        for name, value, least in (("timeout", timeout, 1e-3), ("patience", patience, 0.0)):
            if not least <= value < math.inf:
                raise BadArgumentError(
                    f"{name} must be a number of seconds, finite and not negative, got {value}"
                )
        headers = {"Accept-Encoding": "identity", **bearer(token)}
        transport = httpx.AsyncHTTPTransport(uds=address.uds) if address.uds else None
        self.address, self.timeout, self._patience = address, timeout, patience
        self._http = httpx.AsyncClient(
            base_url=address.http,
            headers=headers,
            timeout=timeout,
            transport=transport,
            proxy=address.proxy,
            verify=address.tls or True,
            trust_env=False,  # the address has what the environment says
        )

    async def call(
        self,
        reply: type[R],
        method: str,
        path: str,
        body: BaseModel | None = None,
        token: str | None = None,
        *,
        repeatable: bool = False,
    ) -> R:
        """A request and its reply.

        Args:
            token: a session's, in place of the server's.
            repeatable: whether the server may do it twice.

        Raises:
            ClientError: of the kind that happened.
        """
        content = await self.send(method, path, body, token, repeatable=repeatable)
        try:
            return reply.model_validate_json(content)
        except ValidationError as error:
            raise BadReplyError(f"{self.place} answered {method} {path} with no {reply.__name__}") from error

    async def send(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        token: str | None = None,
        *,
        repeatable: bool = False,
    ) -> bytes:
        """A request and the bytes of its reply; see `call`."""
        tries = Tries(self._patience)
        while True:
            try:
                async with self._opened(method, path, body, token) as (response, _):
                    return await _read(response)
            except ClientError as error:
                await tries.pause(error, repeatable)

    async def pieces(
        self,
        method: str,
        path: str,
        body: BaseModel,
        on_warnings: Callable[[list[str]], None] | None = None,
    ) -> AsyncGenerator[bytes]:
        """A video of any length, as it comes; `on_warnings` is called first with what the reply warns of."""
        tries, begun = Tries(self._patience), False
        while True:
            try:
                async with self._opened(method, path, body) as (response, limit):
                    limit.reschedule(None)  # httpx still limits the wait for each piece
                    begun = True
                    kind = response.headers.get("content-type", "nothing")
                    if not kind.startswith("video/"):
                        raise BadReplyError(
                            f"{self.place} answered {method} {path} with {kind:.80}, not a video"
                        )
                    if on_warnings is not None and (told := response.headers.get(WARNINGS_HEADER)):
                        on_warnings(self._warnings(told))
                    async for piece in response.aiter_bytes():
                        yield piece
                    return
            except ClientError as error:
                if begun:
                    raise
                await tries.pause(error, False)

    def _warnings(self, header: str) -> list[str]:
        try:
            return _WARNINGS.validate_json(header)
        except ValidationError as error:
            raise BadReplyError(
                f"{self.place} sent the header {WARNINGS_HEADER} {header:.80!r}, no list of sentences"
            ) from error

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: BaseModel | None, token: str | None = None
    ) -> AsyncIterator[tuple[httpx.Response, asyncio.Timeout]]:
        """A reply whose body is still to come, and what limits the wait. All errors are the client's own."""
        self.check_open()
        json = None if body is None else body.model_dump(exclude_none=True)  # older servers know fewer fields
        request = self._http.stream(method, path, json=json, headers=bearer(token))
        try:
            async with asyncio.timeout(self.timeout) as limit, request as response:
                if response.is_error:
                    raise refusal(response.status_code, response.headers, await _read(response))
                if not response.is_success:
                    where = response.headers.get("location", "nowhere")
                    raise BadReplyError(
                        f"{self.place} answered {method} {path} with HTTP {response.status_code}, to "
                        f"{where:.200}; give the client the server's own URL"
                    )
                yield response, limit
        except TimeoutError as error:
            raise UnreachableError(self._late) from error
        except httpx.HTTPError as error:
            raise self._failed(error) from error

    def _failed(self, error: httpx.HTTPError) -> ClientError:
        broken = isinstance(error, httpx.DecodingError | httpx.RemoteProtocolError)
        if broken and "disconnected" not in str(error) and "closed" not in str(error):
            return BadReplyError(f"{self.place} does not speak HTTP as expected: {error}")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return BadReplyError(f"the certificate of {self.place} is not trusted ({error}); see verify=")
        if isinstance(error, httpx.TimeoutException):
            return UnreachableError(self._late)
        if isinstance(error, httpx.ProxyError):
            return UnreachableError(f"the proxy on the way to {self.place} refused: {error}")
        through = " through the proxy that the environment names" if self.address.proxy else ""
        return UnreachableError(f"no answer from {self.place}{through}: {str(error) or type(error).__name__}")

    @property
    def _late(self) -> str:
        return f"{self.place} did not answer within {self.timeout:g} s"

    @property
    def place(self) -> str:
        """The server, for people."""
        return f"unix:{self.address.uds}" if self.address.uds else self.address.http

    def check_open(self) -> None:
        """Refuse what comes after `aclose`.

        Raises:
            ClientError: when it has been called.
        """
        if self._http.is_closed:
            raise ClientError("the client is closed; make another one")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def _read(response: httpx.Response) -> bytes:
    parts, length = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        length += len(part)
        if length > MAX_REPLY_BYTES:
            raise BadReplyError(f"the reply to {response.request.url.path} exceeds {MAX_REPLY_BYTES} bytes")
    return b"".join(parts)


def refusal(status: int, headers: httpx.Headers, content: bytes) -> RefusedError:
    """What a reply with an error status says; a proxy on the way may have written it."""
    try:
        detail = ErrorBody.model_validate_json(content).error
    except ValidationError:
        detail = ErrorDetail(
            code="error", message=f"HTTP {status} {httpx.codes.get_reason_phrase(status)}".strip()
        )
    if detail.retry_after is None and headers.get("retry-after", "").isdecimal():
        detail = detail.model_copy(update={"retry_after": float(headers["retry-after"][:9])})
    return RefusedError(status, detail)


class Tries:
    """The tries of one call, with growing pauses.

    Args:
        patience: seconds in which the last one begins.
    """

    def __init__(self, patience: float) -> None:
        self._until = asyncio.get_running_loop().time() + patience
        self._wait = RETRY_S

    async def pause(self, error: ClientError, repeatable: bool) -> None:
        """Wait before the next try.

        Args:
            error: of the last one.
            repeatable: whether the server may have done it already.

        Raises:
            ClientError: the error, when trying again is unsafe, in vain or too late.
        """
        wait = self._wait
        if isinstance(error, RefusedError):  # so nothing was done
            wait = max(wait, error.retry_after or 0.0)
            hopeful = error.status == 503 and error.retry_after is not None
        else:
            sent = not isinstance(error.__cause__, _NEVER_SENT)
            hopeful = isinstance(error, UnreachableError) and (repeatable or not sent)
        if not hopeful or asyncio.get_running_loop().time() + wait > self._until:
            raise error
        await asyncio.sleep(wait)
        self._wait = min(2 * self._wait, 10 * RETRY_S)
