"""`pyrf serve`: live streams over the network."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from socket import socket
from typing import Annotated, Any, get_type_hints

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
    use_threads,
)
from pyrf.extras import needs, require
from pyrf.serve.settings import ServeSettings

# Some are imported late, when a first viewer comes; a server without them does not start.
SERVER_MODULES = (
    "fastapi",
    "fastapi_offline",
    "uvicorn",
    "websockets",
    "aiortc",
    "prometheus_client",
    "pydantic",
    "opentelemetry",
)

FLAGGED = {field.name: field for field in fields(ServeSettings) if field.metadata["flag"]}
"""The settings that have a flag."""


def _parameter(field: Field[Any], type_: Any) -> inspect.Parameter:
    """What makes typer ask for a setting."""
    flag, default = field.metadata["flag"], field.default
    if isinstance(default, tuple):  # typer repeats the flag of a list
        type_, default = list[str] | None, None
    elif flag.unit:
        default /= flag.unit
    option = typer.Option(flag.name, help=field.metadata["help"], envvar=flag.envvar)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(field.name, kind, default=default, annotation=Annotated[type_, option])


def _value(field: Field[Any], given: Any) -> Any:
    """The setting that a flag's value means."""
    if isinstance(field.default, tuple):
        return tuple(given or ())
    unit = field.metadata["flag"].unit
    return given * unit if unit else given


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Make typer ask for the settings that have a flag; the command gets their values by name."""
    signature, types = inspect.signature(command, eval_str=True), get_type_hints(ServeSettings)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    asked = [_parameter(field, types[name]) for name, field in FLAGGED.items()]
    command.__signature__ = signature.replace(parameters=[*own, *asked])  # type: ignore[attr-defined]
    return command


@_with_flags
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    model: ModelOption = "tiny",
    student: StudentOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    window: WindowOption = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines in without a token.")
    ] = False,
    threads: ThreadsOption = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Serve from replicas on Ray Serve; limits are those of a replica.")
    ] = False,
    replicas: Annotated[int, typer.Option(help="With --ray: replicas at least.")] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(help="With --ray: replicas at most, as sessions need them.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    **flags: Any,
) -> None:
    """Serve live streams: HTTP, WebSocket and WebRTC. SIGTERM finishes the chunk under way and exits."""
    require("serve", "serving", *SERVER_MODULES)
    if log_level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"--log-level must be debug, info, warning or error, got {log_level!r}")
    check_threads(threads)
    from pyrf.serve.server import bind, is_loopback

    sock = bind(host, port)
    loopback = is_loopback(sock)
    if not (loopback or flags["token"] or insecure):
        raise ValueError(
            f"{host} can be reached from other machines: set a token (--token or PYRF_TOKEN), "
            "or let everyone in with --insecure"
        )
    values = {name: _value(field, flags[name]) for name, field in FLAGGED.items()}
    settings = ServeSettings(loopback=loopback, **values)
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

    if not ray:
        _serve(pipeline, model, settings, sock, threads, log_level, started)
        return
    with needs("ray", "--ray"):
        from pyrf.serve.ray import app as on_ray

    sock.close()  # Ray's own proxy listens there
    options = on_ray.RayOptions(replicas, max_replicas or replicas, gpu=not device.startswith("cpu"))
    application = on_ray.application(
        pipeline, model=model, settings=settings, options=options, threads=threads, log_level=log_level
    )
    on_ray.run(application, address, port, started)


def _serve(
    pipeline: dict[str, Any],
    model: str,
    settings: ServeSettings,
    sock: socket,
    threads: int | None,
    log_level: str,
    started: Callable[[], None],
) -> None:
    """Serve from this process."""
    from pyrf.pipeline import StreamingPipeline

    use_threads(threads)  # before loading: ONNX Runtime takes the number when it loads
    # Loaded here and not when the app starts, so that a model that cannot be had is one line.
    pipe = StreamingPipeline.from_pretrained(**pipeline)
    from pyrf.serve.app import create_app
    from pyrf.serve.logs import log_config
    from pyrf.serve.server import run

    app = create_app(lambda: pipe, model=model, settings=settings)
    run(app, settings, sock, log_config=log_config(log_level), started=started)
