"""The body of an HTTP error, which messages of errors carry too."""

from __future__ import annotations

from pydantic import Field

from pyrf.protocol.terms import Reply

ERROR_CODES = frozenset(
    {
        "adapters_fixed",
        "bad_adapter",
        "bad_frame",
        "bad_image",
        "bad_model",
        "bad_offer",
        "bad_output",
        "bad_prompt",
        "bad_request",
        "bad_size",
        "bad_timeline",
        "busy",
        "draining",
        "error",
        "forbidden",
        "forbidden_host",
        "forbidden_origin",
        "full",
        "internal",
        "interrupted",
        "invalid",
        "loading",
        "method_not_allowed",
        "no_session",
        "no_verdict",
        "not_finite",
        "not_found",
        "outputs_off",
        "preparing",
        "quota",
        "rate_limited",
        "refused",
        "shutting_down",
        "timeout",
        "too_large",
        "too_long",
        "unauthorized",
        "unsupported_type",
        "webrtc_off",
        "wrong_version",
    }
)


class ErrorDetail(Reply):
    """`code` is for programs, `message` for people; `retry_after` in seconds where trying again helps.

    `progress` is the share of loading that is done, 0..1, while the server loads.
    """

    code: str = Field(description=f"One of {', '.join(sorted(ERROR_CODES))}; later servers may have others.")
    message: str
    retry_after: float | None = None
    progress: float | None = None


class ErrorBody(Reply):
    """The body of every HTTP error."""

    error: ErrorDetail
