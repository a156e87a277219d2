"""OpenTelemetry spans: one of each session, and below it one of each chunk.

Nothing is recorded until the process has a tracer provider, as `opentelemetry-instrument` sets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace

from pyrf import __version__

if TYPE_CHECKING:
    from pyrf.protocol import EndReason
    from pyrf.serve.sessions.chunks import SessionOptions
    from pyrf.streaming.chunk import Chunk


class SessionSpan:
    """The span of a session, under that of the request that asked for it."""

    def __init__(self, id: str, options: SessionOptions) -> None:
        self._tracer = trace.get_tracer("pyrf", __version__)
        self._span = self._tracer.start_span(
            "pyrf.session",
            attributes={
                "pyrf.session": id,
                "pyrf.model": options.model,
                "pyrf.seed": options.seed,
                "pyrf.height": options.height,
                "pyrf.width": options.width,
                "pyrf.pace": options.pace,
            },
        )
        self._context = trace.set_span_in_context(self._span)

    def add_chunk(self, chunk: Chunk, prompt_id: int, batch: int, began: int, ended: int) -> None:
        """A chunk was made, together with those of `batch - 1` other sessions.

        Args:
            began, ended: Unix time in nanoseconds.
        """
        attributes = {
            "pyrf.chunk": chunk.index,
            "pyrf.frames": len(chunk.frames),
            "pyrf.prompt_id": prompt_id,
            "pyrf.batch": batch,
        }
        span = self._tracer.start_span("pyrf.chunk", self._context, attributes=attributes, start_time=began)
        span.end(ended)

    def end(self, reason: EndReason) -> None:
        self._span.set_attribute("pyrf.end", reason)
        if reason in ("failed", "not_finite", "rank_lost"):
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()
