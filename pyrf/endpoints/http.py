"""A JSON endpoint of someone else: each call has a time-out, and each reply a size."""

from __future__ import annotations

import json
import time
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

MAX_REPLY_BYTES = 65_536
PIECE = 4096


class EndpointError(ValueError):
    """The endpoint gives no usable answer."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key, and the prompt, to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint:
    """An OpenAI-compatible API. Threads may share it.

    Args:
        url: its base, as "http://localhost:11434/v1".
        key: sent as a bearer token.
        timeout_s: seconds for a whole call, within that for each wait.
        option: what the URL is called in errors.

    Raises:
        ValueError: when it is no URL of HTTP, or the key or time-out is none.
    """

    def __init__(self, url: str, *, key: str | None, timeout_s: float, option: str) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            usable = False
        if not usable or parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                f"{option} must be the base URL of an API, such as http://localhost:11434/v1, "
                "without user, query and fragment"
            )
        if not 0 < timeout_s <= 600:
            raise ValueError(f"the time-out of {option} must lie in 0..600 seconds, got {timeout_s}")
        if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key and key):
            raise ValueError(f"the key of {option} must be printable ASCII without spaces around it")
        self.url, self.timeout_s = url.rstrip("/"), timeout_s
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._opener = urllib.request.build_opener(_NoRedirects)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON reply to a JSON body.

        Raises:
            EndpointError: for no reply in time, one that is too long or no JSON, and any status but 200.
        """
        until = time.monotonic() + self.timeout_s
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.timeout_s) as response:
                content = _read(response, until)
                if response.status != 200:
                    raise EndpointError(f"{self.url}{path} answered HTTP {response.status}")
        except HTTPError as error:
            with error:
                raise EndpointError(f"{self.url}{path} answered HTTP {error.code}") from None
        except TimeoutError:
            raise EndpointError(f"{self.url}{path} did not answer in {self.timeout_s:g} s") from None
        except (OSError, HTTPException) as error:
            raise EndpointError(f"{self.url}{path} cannot be asked: {error}") from None
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise EndpointError(f"{self.url}{path} answered with no JSON") from None


def _read(response: HTTPResponse, until: float) -> bytes:
    """A whole body that is neither too long nor too slow."""
    parts, size = [], 0
    while piece := response.read1(PIECE):
        parts.append(piece)
        size += len(piece)
        if size > MAX_REPLY_BYTES:
            raise EndpointError(f"the endpoint's reply is longer than {MAX_REPLY_BYTES} bytes")
        if time.monotonic() > until:
            raise TimeoutError
    return b"".join(parts)
