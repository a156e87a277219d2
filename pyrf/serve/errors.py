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

from pyrf.protocol import ErrorBody, ErrorDetail
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


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    logger.error("request failed", exc_info=error, extra={"path": request.url.path})
    return _response(500, ErrorDetail(code="internal", message="the server failed; its log says why"))


def add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Give every error the one shape, and count those that are refusals."""

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StarletteHTTPException)
        metrics.count_refusal(_detail(error).code)
        return error_response(error)

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        metrics.count_refusal("invalid")
        return _response(422, ErrorDetail(code="invalid", message=first_problem(error.errors())))

    app.add_exception_handler(StarletteHTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, _on_bug)
