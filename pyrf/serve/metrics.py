"""What Prometheus reads from a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pyrf.protocol import State
from pyrf.serve.logs import lines_dropped

_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)


class Metrics:
    """The figures of one server, in a registry of its own.

    Attributes:
        count_states: live sessions by state, asked for at each scrape; there are none before it is set.
        count_connections: the same for open connections.
        cut: connections that were cut off, by reason.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.count_states: Callable[[], dict[State, int]] = dict
        self.count_connections: Callable[[], int] = int
        registry.register(self)
        ProcessCollector(registry=registry)
        self.started = Counter("pyrf_sessions_started", "Sessions and clips begun", registry=registry)
        self.ended = Counter("pyrf_sessions_ended", "Sessions ended", ["reason"], registry=registry)
        self._refused = Counter("pyrf_refused", "Requests refused", ["code"], registry=registry)
        self.cut = Counter(
            "pyrf_connections_cut", "Connections that the server cut off", ["reason"], registry=registry
        )
        self.frames = Counter("pyrf_frames", "Frames made", registry=registry)
        self.dropped = Counter("pyrf_frames_dropped", "Frames slow viewers lost", registry=registry)
        self.queue = Gauge("pyrf_queue_chunks", "Sessions due for a chunk now", registry=registry)
        self.batch = Histogram(
            "pyrf_batch_sessions", "Sessions computed in one call", buckets=(1, 2, 4, 8), registry=registry
        )
        self.chunk = self._histogram("pyrf_chunk_seconds", "The model's time for a chunk and its company")
        self.wait = self._histogram("pyrf_queue_seconds", "From a chunk's being due to its start")
        self.first_frame = self._histogram("pyrf_first_frame_seconds", "From creation to the first frames")

    def count_refusal(self, code: str) -> None:
        """A request, or the handshake of a WebSocket, was refused."""
        self._refused.labels(code).inc()

    def _histogram(self, name: str, help: str) -> Histogram:
        return Histogram(name, help, buckets=_SECONDS, registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("pyrf_sessions", "Live sessions by state", labels=["state"])
        for state, count in self.count_states().items():
            family.add_metric([state], count)
        yield family
        yield GaugeMetricFamily("pyrf_connections", "Open connections", value=self.count_connections())
        yield CounterMetricFamily(
            "pyrf_log_lines_dropped", "Log lines that were left out", value=lines_dropped()
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
