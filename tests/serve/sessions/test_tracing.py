"""Spans of sessions and chunks, as an exporter gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.running import BLUE, PROMPT, Running, read_frames


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Gets the spans; a process can set its provider once only, so the tests put theirs in the way."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def test_a_session_is_a_span_and_its_chunks_lie_in_it(
    serve: Callable[..., Running], exporter: InMemorySpanExporter
) -> None:
    server = serve()
    created = server.create(PROMPT, seed=7, pace="max")
    with server.attach(created) as socket:
        read_frames(socket, 10)
        server.post(created, "/prompt", prompt=BLUE)
        read_frames(socket, 40)
    server.delete(created)
    spans = exporter.get_finished_spans()
    *chunks, session = spans
    assert session.name == "pyrf.session"
    assert session.attributes is not None
    assert session.attributes["pyrf.session"] == created["id"]
    assert session.attributes["pyrf.seed"] == 7
    assert session.attributes["pyrf.end"] == "closed"
    assert session.status.status_code is trace.StatusCode.UNSET
    assert [span.attributes["pyrf.chunk"] for span in chunks if span.attributes] == list(range(len(chunks)))
    assert {span.attributes["pyrf.prompt_id"] for span in chunks if span.attributes} == {0, 1}
    for span in chunks:
        assert span.name == "pyrf.chunk"
        assert span.parent is not None
        assert span.parent.span_id == session.context.span_id
        assert session.start_time is not None
        assert span.start_time is not None
        assert span.end_time is not None
        assert session.start_time <= span.start_time < span.end_time
    text = " ".join(span.to_json() for span in spans)
    assert PROMPT not in text
    assert created["token"] not in text


def test_a_failed_session_is_an_error(serve: Callable[..., Running], exporter: InMemorySpanExporter) -> None:
    server = serve()
    created = server.create()
    server.call(lambda: server.session(created).end("failed"))
    session = next(span for span in exporter.get_finished_spans() if span.name == "pyrf.session")
    assert session.status.status_code is trace.StatusCode.ERROR
