"""The same app on Ray Serve: a replica a GPU or CPU share, as many as the live sessions need."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import signal
import threading
from collections.abc import Callable
from logging.config import dictConfig
from typing import TYPE_CHECKING, Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported

import ray
from ray import serve
from ray.serve.config import (
    AutoscalingConfig,
    AutoscalingContext,
    AutoscalingPolicy,
    HTTPOptions,
    RequestRouterConfig,
)
from ray.serve.context import _get_global_client

from pyrf.serve.ends import end_at_once, end_within, reason
from pyrf.serve.logs import log_config
from pyrf.serve.settings import ServeSettings
from pyrf.stops import heard

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pyrf.pipeline import StreamingPipeline
    from pyrf.serve.sessions.registry import SessionRegistry

APP = "pyrf"
DEPLOYMENT = "Replica"
STORE_BYTES = 256 * 2**20
"""Ray's object store on a machine of its own: frames are small and pass through quickly."""
POLL_S = 1.0
"""Seconds between looks at whether a replica is to go."""
DRAIN_S = 600.0
"""Seconds that the sessions of a replica which is no longer needed may go on."""
FAREWELL_S = 15.0
"""Seconds for the chunk under way and the last messages."""
RAY_END_S = 15.0
"""Seconds that Ray's own processes may take to end, once viewers were told."""
FAILED = "the model was not loaded: "
"""Stands before the reason in what Ray tells of a replica that could not start."""
STARTS = 1
"""Times that Ray tries to start the first replica; it never gives up on one that takes a dead one's place."""
FILL = 0.75
"""Share of a replica's sessions above which another replica is asked for."""


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """How many replicas there are, and what each holds.

    Attributes:
        replicas: at least.
        max_replicas: at most.
        gpu: whether each has GPUs to itself, else it counts as CPUs.
        ranks: how many of them; Ray gives a replica all of one machine, or waits.
    """

    replicas: int = 1
    max_replicas: int = 1
    gpu: bool = False
    ranks: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= self.max_replicas:
            raise ValueError(
                f"replicas must be at least 1 and at most max_replicas, got {self.replicas} and "
                f"{self.max_replicas}"
            )


@serve.ingress()
class Replica:
    """A server in a process of Ray's. Its sessions' ids begin with its name, for the router.

    What serves is imported here only: the process that starts replicas loads no torch.
    """

    def __init__(
        self, pipeline: dict[str, Any], model: str, settings: ServeSettings, threads: int | None, level: str
    ) -> None:
        dictConfig(log_config(level))
        self._pipeline, self._model, self._threads = pipeline, model, threads
        self._name = serve.get_replica_context().replica_id.unique_id
        self._settings = dataclasses.replace(settings, id_prefix=f"{self._name}.")
        try:
            self._pipe = self._load()
        except Exception as error:  # only its text reaches the process that started this one
            raise RuntimeError(f"{FAILED}{' '.join(reason(error).split())}") from None

    def __serve_build_asgi_app__(self) -> FastAPI:
        from pyrf.serve.app import create_app

        self._made = create_app(lambda: self._pipe, model=self._model, settings=self._settings)
        self._watch = asyncio.get_running_loop().create_task(self._drain_when_told())
        return self._made

    def _load(self) -> StreamingPipeline:
        from pyrf.pipeline import StreamingPipeline
        from pyrf.threads import set_threads

        if self._threads is not None:
            set_threads(self._threads)
        return StreamingPipeline.from_pretrained(**self._pipeline)

    def record_routing_stats(self) -> dict[str, Any]:
        """For `SessionRouter`."""
        return {"full": self._sessions() >= self._settings.max_sessions}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For `replicas_needed`."""
        return {"sessions": float(self._sessions())}

    def _registry(self) -> SessionRegistry | None:
        from pyrf.serve.state import state_of

        state = state_of(self._made)
        return None if state is None else state.registry

    def _sessions(self) -> int:
        registry = self._registry()
        return 0 if registry is None else registry.info().sessions

    async def _drain_when_told(self) -> None:
        """Ray waits for the connections of a replica that is to go; it tells the replica nothing."""
        while (left := await asyncio.to_thread(self._seconds_left)) is None:
            await asyncio.sleep(POLL_S)
        loop = asyncio.get_running_loop()
        until = loop.time() + left
        while self._sessions() and left and loop.time() < until:
            await asyncio.sleep(POLL_S)
            left = await asyncio.to_thread(self._seconds_left)
        if registry := self._registry():
            await registry.drain(self._settings.drain_s)

    def _seconds_left(self) -> float | None:
        """None as long as this replica is wanted."""
        app = replica_details()
        if app is None or app["status"] == "DELETING":
            return 0.0
        replicas = app["deployments"][DEPLOYMENT]["replicas"]
        going = any(r["replica_id"] == self._name and r["state"] == "STOPPING" for r in replicas)
        return DRAIN_S if going else None


def replica_details() -> dict[str, Any] | None:
    """What Ray's controller knows of the app; None when it is gone."""
    applications = _get_global_client().get_serve_details()["applications"]
    details: dict[str, Any] | None = applications.get(APP)
    return details


def replicas_needed(context: AutoscalingContext, *, room: int) -> int:
    """Replicas for the live sessions, none more than `FILL` full; `room` is what a replica takes."""
    latest = (context.raw_metrics or {}).get("sessions", {}).values()
    sessions = sum(series[-1].value for series in latest if series)
    return max(1, math.ceil(sessions / max(1.0, FILL * room)))


class SessionPolicy:
    """`replicas_needed`, as Ray Serve wants it."""

    def __init__(self, room: int) -> None:
        self._room = room

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        wanted = replicas_needed(context, room=self._room)
        least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        return min(max(wanted, least), most), {}


def application(
    pipeline: dict[str, Any],
    *,
    model: str,
    settings: ServeSettings,
    options: RayOptions,
    threads: int | None = None,
    log_level: str = "info",
) -> serve.Application:
    """The app to be run by `serve.run`.

    Args:
        pipeline: arguments of `StreamingPipeline.from_pretrained`; each replica loads its own.
        model: its name, for people.
        settings: of each replica; `max_sessions` are a replica's.
    """
    policy = AutoscalingPolicy(
        policy_function="pyrf.serve.ray.app:SessionPolicy", policy_kwargs={"room": settings.max_sessions}
    )
    deployment = serve.deployment(
        Replica,
        name=DEPLOYMENT,
        ray_actor_options={"num_gpus": options.ranks if options.gpu else 0, "num_cpus": options.ranks},
        max_ongoing_requests=4 * settings.max_sessions + 64,
        max_constructor_retry_count=STARTS,
        graceful_shutdown_timeout_s=DRAIN_S + FAREWELL_S,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=2,
        request_router_config=RequestRouterConfig(
            request_router_class="pyrf.serve.ray.router.SessionRouter", request_routing_stats_period_s=1
        ),
        autoscaling_config=AutoscalingConfig(
            min_replicas=options.replicas,
            initial_replicas=options.replicas,
            max_replicas=options.max_replicas,
            metrics_interval_s=1,
            look_back_period_s=2,
            upscale_delay_s=2,
            downscale_delay_s=60,
            policy=policy,
        ),
    )
    return deployment.bind(pipeline, model, settings, threads, log_level)


def run(
    app: serve.Application,
    host: str,
    port: int,
    started: Callable[[], None],
    *,
    drain_s: float,
    certfile: str | None = None,
    keyfile: str | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; joins the cluster that RAY_ADDRESS names, or starts one of its own.

    Args:
        app: from `application`.
        host, port: where Ray's proxy listens.
        started: called once the model is loaded.
        drain_s: seconds that viewers have after a signal; Ray's own end may take `RAY_END_S` more.
        certfile, keyfile: for HTTPS, PEM.

    Raises:
        ValueError: the model cannot be loaded, and why.
    """
    # Else Ray's proxy believes X-Forwarded-For of its own machine. Replicas judge for themselves.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    numbers = heard()
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(log_to_driver=False, include_dashboard=False, object_store_memory=STORE_BYTES)
    stop = threading.Event()

    def handle(number: int, _: object) -> None:
        if stop.is_set():  # the second signal is the end
            end_at_once(number)
        stop.set()
        end_within(drain_s + RAY_END_S)

    for number in numbers:  # after ray.init, which sets handlers of its own
        signal.signal(number, handle)
    try:
        try:
            serve.start(
                http_options=HTTPOptions(host=host, port=port, ssl_certfile=certfile, ssl_keyfile=keyfile)
            )
            serve.run(app, name=APP, route_prefix="/")
        except RuntimeError as error:  # Ray's own errors are such too; the last line says what happened
            raise ValueError(_why_not_started() or str(error).splitlines()[-1]) from None
        started()
        stop.wait()
        serve.delete(APP)
        serve.shutdown()
    finally:
        ray.shutdown()


def _why_not_started() -> str | None:
    """What the last replica that could not start gave as its reason."""
    status = serve.status().applications.get(APP)
    if status is None:
        return None
    told = [line for each in status.deployments.values() for line in each.message.splitlines()]
    return next((line.partition(FAILED)[2] for line in reversed(told) if FAILED in line), None)
