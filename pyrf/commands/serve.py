"""`pyrf serve`: live streams over the network."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pyrf.commands.options import (
    BackendOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    StudentOption,
    ThreadsOption,
    WindowOption,
    check_threads,
)
from pyrf.extras import needs, require

# Some are imported late, when a first viewer comes; a server without them does not start.
SERVER_MODULES = (
    "fastapi",
    "fastapi_offline",
    "uvicorn",
    "websockets",
    "aiortc",
    "prometheus_client",
    "pydantic",
    "httpx",
)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    model: ModelOption = "tiny",
    student: StudentOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    window: WindowOption = None,
    token: Annotated[
        str | None,
        typer.Option(help="What clients must know to begin a session.", envvar="PYRF_TOKEN"),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines in without a token.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Web origin whose pages may use the server too; may be repeated."),
    ] = None,
    ice_server: Annotated[
        list[str] | None,
        typer.Option(help="stun:HOST or turn:USER:PASSWORD@HOST, for WebRTC; may be repeated."),
    ] = None,
    max_sessions: Annotated[int, typer.Option(help="Sessions and clips at a time.")] = 16,
    max_batch: Annotated[int, typer.Option(help="Sessions computed in one call.")] = 4,
    max_minutes: Annotated[float, typer.Option(help="Longest life of a session.")] = 60.0,
    grace: Annotated[float, typer.Option(help="Seconds a session outlives its viewer.")] = 30.0,
    creates_per_minute: Annotated[float, typer.Option(help="Sessions one address may begin.")] = 60.0,
    threads: ThreadsOption = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Serve from replicas on Ray Serve; limits are those of a replica.")
    ] = False,
    replicas: Annotated[int, typer.Option(help="With --ray: replicas at least.")] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(help="With --ray: replicas at most, as sessions need them.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts to the log.")] = False,
) -> None:
    """Serve live streams: HTTP, WebSocket and WebRTC. SIGTERM finishes the chunk under way and exits."""
    require("serve", "serving", *SERVER_MODULES)
    if log_level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"--log-level must be debug, info, warning or error, got {log_level!r}")
    check_threads(threads)
    from pyrf.serve.server import bind, is_loopback
    from pyrf.serve.settings import ServeSettings

    sock = bind(host, port)
    loopback = is_loopback(sock)
    if not (loopback or token or insecure):
        raise ValueError(
            f"{host} can be reached from other machines: set a token (--token or PYRF_TOKEN), "
            "or let everyone in with --insecure"
        )
    settings = ServeSettings(
        token=token,
        loopback=loopback,
        origins=tuple(origin or ()),
        max_sessions=max_sessions,
        max_batch=max_batch,
        max_session_s=60 * max_minutes,
        grace_s=grace,
        creates_per_minute=creates_per_minute,
        ice_servers=tuple(ice_server or ()),
        log_prompts=log_prompts,
    )
    address, port, *_ = sock.getsockname()
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
    pipeline: dict[str, Any] = {
        "name": model,
        "student": student,
        "backend": backend,
        "dtype": dtype,
        "device": device,
        "window_frames": window,
    }

    def started() -> None:
        typer.echo(f"pyrf serves {model} at {url}", nl=True)

    if ray:
        with needs("ray", "--ray"):
            from pyrf.serve.ray import app

        sock.close()  # Ray's own proxy listens there
        options = app.RayOptions(replicas, max_replicas or replicas, gpu=not device.startswith("cpu"))
        app = app.application(
            pipeline, model=model, settings=settings, options=options, threads=threads, log_level=log_level
        )
        app.run(app, address, port, started)
        return

    from pyrf.pipeline import StreamingPipeline

    if threads is not None:
        import torch

        torch.set_num_threads(threads)  # before loading: ONNX Runtime takes the number when it loads
    # Loaded here and not when the app starts, so that a model that cannot be had is one line.
    pipe = StreamingPipeline.from_pretrained(**pipeline)
    from pyrf.serve.app import create_app
    from pyrf.serve.logs import log_config
    from pyrf.serve.server import run

    run(
        create_app(lambda: pipe, model=model, settings=settings),
        settings,
        sock,
        log_config=log_config(log_level),
        started=started,
    )
