"""What Prometheus reads from a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pyrf.protocol import State
from pyrf.serve.logs import lines_dropped

_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class KeyFigures:
    """What an API key has used.

    Attributes:
        name: the key's.
        sessions: that are live.
        started: sessions and clips.
        seconds: of video.
    """

    name: str
    sessions: int
    started: int
    seconds: float


class Metrics:
    """The figures of one server, in a registry of its own.

    Attributes:
        count_keys: what API keys have used, asked for at each scrape; there are none before it is set.
        count_connections: the same for open connections.
        cut: connections that were cut off, by reason.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._models: list[str] = []
        self._count_states: Callable[[str], dict[State, int]] = lambda _: {}
        self.count_keys: Callable[[], Iterable[KeyFigures]] = tuple
        self.count_connections: Callable[[], int] = int
        registry.register(self)
        ProcessCollector(registry=registry)
        self.started = Counter(
            "pyrf_sessions_started", "Sessions and clips begun", ["model"], registry=registry
        )
        self.ended = Counter("pyrf_sessions_ended", "Sessions ended", ["reason"], registry=registry)
        self._refused = Counter("pyrf_refused", "Requests refused", ["code"], registry=registry)
        self.cut = Counter(
            "pyrf_connections_cut", "Connections that the server cut off", ["reason"], registry=registry
        )
        self.frames = Counter("pyrf_frames", "Frames made", ["model"], registry=registry)
        self.dropped = Counter(
            "pyrf_frames_dropped", "Frames slow viewers lost", ["model"], registry=registry
        )
        self.queue = Gauge("pyrf_queue_chunks", "Sessions due for a chunk now", registry=registry)
        self.batch = Histogram(
            "pyrf_batch_sessions", "Sessions computed in one call", buckets=(1, 2, 4, 8), registry=registry
        )
        self.chunk = self._histogram(
            "pyrf_chunk_seconds", "The model's time for a chunk and its company", ["model"]
        )
        self.wait = self._histogram("pyrf_queue_seconds", "From a chunk's being due to its start")
        self.first_frame = self._histogram("pyrf_first_frame_seconds", "From creation to the first frames")

    def count_refusal(self, code: str) -> None:
        """A request, or the handshake of a WebSocket, was refused."""
        self._refused.labels(code).inc()

    def begin(self, models: list[str], count_states: Callable[[str], dict[State, int]]) -> None:
        """Models are served from now on: each has figures, which are 0 at first.

        Args:
            models: their names.
            count_states: live sessions of a model by state, asked for at each scrape.
        """
        self._models, self._count_states = models, count_states
        for model in models:
            for figure in (self.started, self.frames, self.dropped, self.chunk):
                figure.labels(model)

    def _histogram(self, name: str, help: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(name, help, labels, buckets=_SECONDS, registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "state"]
        family = GaugeMetricFamily("pyrf_sessions", "Live sessions by model and state", labels=labels)
        for model in self._models:
            for state, count in self._count_states(model).items():
                family.add_metric([model, state], count)
        yield family
        yield from self._by_key()
        yield GaugeMetricFamily("pyrf_connections", "Open connections", value=self.count_connections())
        yield CounterMetricFamily(
            "pyrf_log_lines_dropped", "Log lines that were left out", value=lines_dropped()
        )

    def _by_key(self) -> Iterator[Metric]:
        live = GaugeMetricFamily("pyrf_key_sessions", "Live sessions by API key", labels=["key"])
        started = CounterMetricFamily(
            "pyrf_key_sessions_started", "Sessions and clips by API key", labels=["key"]
        )
        seconds = CounterMetricFamily("pyrf_key_seconds", "Seconds of video by API key", labels=["key"])
        for key in self.count_keys():
            live.add_metric([key.name], key.sessions)
            started.add_metric([key.name], key.started)
            seconds.add_metric([key.name], key.seconds)
        yield from (live, started, seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
