"""Moderation: a hook that sees prompts, and some frames, before or while others see them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyrf.endpoints.http import Endpoint, EndpointError

if TYPE_CHECKING:  # the command line reads this before it needs them
    import numpy as np
    from numpy.typing import NDArray

KEY_VARIABLE = "PYRF_MODERATE_KEY"

Moderate = Callable[[Any], str | None]
"""Given a prompt, or a frame as uint8 [H, W, 3]: why it is refused, for people; None where it is not."""


class HttpModerator:
    """A `Moderate` that asks an OpenAI-compatible API (`POST /moderations`). Threads may share it.

    Args:
        url: base of the API, as "http://localhost:8080/v1".
        model: its name there; one that takes images, if frames are to be judged.
        key: sent as a bearer token; by default $PYRF_MODERATE_KEY.
        timeout_s: seconds for a call.

    Raises:
        ValueError: when the URL, key or time-out is none.
    """

    def __init__(
        self, url: str, *, model: str | None = None, key: str | None = None, timeout_s: float = 10.0
    ) -> None:
        key = key or os.environ.get(KEY_VARIABLE) or None
        self._endpoint = Endpoint(url, key=key, timeout_s=timeout_s, option="moderate")
        self._model = model

    def __call__(self, subject: str | NDArray[np.uint8]) -> str | None:
        """Why a prompt or a frame is refused, if it is.

        Raises:
            EndpointError: when the endpoint gives no verdict.
        """
        shown = subject if isinstance(subject, str) else [_image(subject)]
        body = {"input": shown} if self._model is None else {"input": shown, "model": self._model}
        reply = self._endpoint.post("/moderations", body)
        try:
            verdicts = [(one["flagged"], one.get("categories") or {}) for one in reply["results"]]
        except (AttributeError, KeyError, TypeError):
            verdicts = []
        if not verdicts or not all(isinstance(flagged, bool) for flagged, _ in verdicts):
            raise EndpointError(f"{self._endpoint.url} answered with no verdict")
        if not any(flagged for flagged, _ in verdicts):
            return None
        kinds = {
            str(kind) for _, found in verdicts if isinstance(found, dict) for kind in found if found[kind]
        }
        return f"it was flagged as {', '.join(sorted(kinds)):.200}" if kinds else "it was flagged"


def _image(frame: NDArray[np.uint8]) -> dict[str, object]:
    """A frame as the API takes images."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=85)
    url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
