"""What a client refuses before it asks any server; and its errors, copied."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from pyrf.client import (
    AsyncClient,
    BadArgumentError,
    BadReplyError,
    Client,
    ClientError,
    RefusedError,
    SessionLostError,
    UnreachableError,
)
from pyrf.protocol import ErrorDetail
from tests.support.client_calls import run
from tests.support.running import PROMPT


@pytest.mark.parametrize(
    "token", ["", "s3cret\n", " s3cret", "s3cret ", "s3\ncret", "s3cret\x00", "пароль", "s3crét"]
)
def test_a_token_that_no_header_holds_is_not_told(token: str) -> None:
    for make in (AsyncClient, Client):
        with pytest.raises(BadArgumentError, match="the token must be printable ASCII") as refused:
            make("http://127.0.0.1:8000", token)
        assert not token.strip() or token.strip() not in str(refused.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"patience": -1}]
)
def test_numbers_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(BadArgumentError, match="must be a number of seconds"):
        Client("http://127.0.0.1:8000", **options)


def test_requests_that_no_server_takes() -> None:
    async def main() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            for call in (
                client.create_session(PROMPT, seed=-1),
                client.create_session(7),  # type: ignore[arg-type]
                client.create_session(PROMPT, pace="slow"),  # type: ignore[arg-type]
                anext(client.video(PROMPT, 0)),
            ):
                with pytest.raises(BadArgumentError):
                    await call

    run(main())


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_can_be_copied_and_pickled(make: Callable[[Any], Any]) -> None:
    error = make(RefusedError(503, ErrorDetail(code="full", message="all taken", retry_after=5.0)))
    assert (error.status, error.code, error.retry_after, str(error)) == (503, "full", 5.0, "all taken")
    for kind in (BadArgumentError, BadReplyError, UnreachableError, SessionLostError, ClientError):
        copied = make(kind("why"))
        assert (type(copied), str(copied)) == (kind, "why")
