"""The OpenAPI schema: what FastAPI finds in the routes, and the limits and refusals of this server."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from pyrf.protocol import ErrorBody
from pyrf.serve.settings import ServeSettings

EVERYWHERE: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in (
        (403, "A foreign page asks, or the Host header does not name the server."),
        (408, "The request came too slowly."),
        (431, "The headers are too large."),
        (500, "The server has a fault."),
        (503, "The model is still being loaded, or the server is full or shuts down."),
    )
}
"""What may become of any request."""


def tell_limits(app: FastAPI, settings: ServeSettings) -> None:
    """Make an app's schema name the limits that its settings have."""
    plain = app.openapi
    limits: dict[tuple[str, str], dict[str, Any]] = {
        ("SessionRequest", "prompt"): {"minLength": 1, "maxLength": settings.max_prompt_chars},
        ("PromptRequest", "prompt"): {"minLength": 1, "maxLength": settings.max_prompt_chars},
        ("VideoRequest", "prompt"): {"minLength": 1, "maxLength": settings.max_prompt_chars},
        ("VideoRequest", "num_frames"): {"maximum": settings.max_video_frames},
    }

    def openapi() -> dict[str, Any]:
        schema = plain()
        for (model, name), limit in limits.items():
            schema["components"]["schemas"][model]["properties"][name].update(limit)
        for model in ("SessionRequest", "VideoRequest"):
            for name in ("height", "width"):
                schema["components"]["schemas"][model]["properties"][name]["anyOf"][0]["minimum"] = 1
        schema["info"]["x-max-body-bytes"] = settings.max_body_bytes
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the schema
