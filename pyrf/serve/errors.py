"""Refusals: every HTTP error has the body `ErrorBody`, every refused control message an `ErrorMessage`."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyrf.protocol import ErrorBody, ErrorDetail
from pyrf.serve.envelope import note_refusal
from pyrf.serve.metrics import Metrics

logger = logging.getLogger(__name__)

_CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    400: "bad_request",
}


class ServeError(HTTPException):
    """A request that is refused.

    Args:
        status: of the HTTP reply.
        code: for programs.
        message: for people: what was given, what was expected, what to do.
        retry_after: seconds after which the same may succeed.
        progress: share of loading that is done, while the server loads.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        progress: float | None = None,
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.reply = ErrorDetail(code=code, message=message, retry_after=retry_after, progress=progress)


def first_problem(errors: Sequence[Any]) -> str:
    """One line from pydantic's list of errors; what was given is left out, as it may be a prompt."""
    error = errors[0]
    place = ".".join(str(part) for part in error["loc"] if part != "body") or "the body"
    return f"{place}: {error['msg']}"


def _response(status: int, detail: ErrorDetail, headers: Any = None) -> JSONResponse:
    body = ErrorBody(error=detail).model_dump(exclude_none=True)
    return JSONResponse(body, status, headers=headers)


def _detail(error: StarletteHTTPException) -> ErrorDetail:
    if isinstance(error, ServeError):
        return error.reply
    return ErrorDetail(code=_CODES.get(error.status_code, "error"), message=str(error.detail))


def error_response(error: StarletteHTTPException) -> JSONResponse:
    """A refusal as a reply."""
    return _response(error.status_code, _detail(error), error.headers)


def _failed(scope: Scope, error: Exception) -> JSONResponse:
    logger.error("request failed", exc_info=error, extra={"path": scope["path"]})
    note_refusal(scope, "internal")
    return _response(500, ErrorDetail(code="internal", message="the server failed; its log says why"))


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    return _failed(request.scope, error)


class Faults:
    """Answers for what fails, within what adds headers to replies; Starlette's own way is outside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noticed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        except Exception as error:
            if started:
                raise  # the reply cannot be taken back; it is cut off
            await _failed(scope, error)(scope, receive, send)


def add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Give every error the one shape, and count those that are refusals."""

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StarletteHTTPException)
        code = _detail(error).code
        metrics.count_refusal(code)
        note_refusal(request.scope, code)
        return error_response(error)

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        metrics.count_refusal("invalid")
        note_refusal(request.scope, "invalid")
        return _response(422, ErrorDetail(code="invalid", message=first_problem(error.errors())))

    app.add_exception_handler(StarletteHTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, _on_bug)
