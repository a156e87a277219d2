"""Moderation by a real HTTP server."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pyrf.endpoints.http import EndpointError
from pyrf.endpoints.moderate import HttpModerator
from tests.support.chat_endpoint import as_verdict, chat_endpoint


def test_a_prompt_is_judged() -> None:
    def answer(path: str, body: Any) -> tuple[int, bytes]:
        assert path == "/v1/moderations"
        return as_verdict("sword" in body["input"], violence="sword" in body["input"], other=False)

    with chat_endpoint(answer) as endpoint:
        moderate = HttpModerator(endpoint.url, model="guard")
        assert moderate("a fox") is None
        assert moderate("a sword") == "it was flagged as violence"
        assert endpoint.asked[0][2] == {"input": "a fox", "model": "guard"}


def test_a_frame_is_judged_as_a_picture() -> None:
    frame = np.full((32, 48, 3), (200, 30, 30), np.uint8)

    def answer(_: str, body: Any) -> tuple[int, bytes]:
        (part,) = body["input"]
        head, data = part["image_url"]["url"].split(",")
        assert (part["type"], head) == ("image_url", "data:image/jpeg;base64")
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert seen.shape == frame.shape
        return as_verdict(bool(seen[..., 0].mean() > 150))

    with chat_endpoint(answer) as endpoint:
        assert HttpModerator(endpoint.url)(frame) == "it was flagged"
        assert HttpModerator(endpoint.url)(np.zeros_like(frame)) is None


@pytest.mark.parametrize(
    "reply", [(503, b""), (200, b"{}"), (200, b'{"results": []}'), (200, b'{"results": [{"flagged": "no"}]}')]
)
def test_no_verdict_is_no_permission(reply: tuple[int, bytes]) -> None:
    with chat_endpoint(lambda *_: reply) as endpoint, pytest.raises(EndpointError):
        HttpModerator(endpoint.url)("a fox")
