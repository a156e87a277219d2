"""`pyrf serve`: live streams over the network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from socket import AF_UNIX, socket
from ssl import SSLContext
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pyrf import printing
from pyrf.backends.torch.parallel.torchrun import TORCHRUN
from pyrf.bundle.adapter_file import parse_adapter
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.loading import MaxMemoryOption
from pyrf.commands.options import (
    DEFAULT_MODEL,
    BackendOption,
    DecoderRankOption,
    DeviceOption,
    DtypeOption,
    GpusOption,
    LoraOption,
    ModelsOption,
    PrecisionOption,
    StreamOption,
    StudentOption,
    ThreadsOption,
    check_threads,
    ranks_of_stream,
    use_threads,
)
from pyrf.commands.serve_config import take_config, unflagged
from pyrf.commands.served_models import check_several, load_models, parse_models
from pyrf.extras import needs, require
from pyrf.files import expanded
from pyrf.serve.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pyrf.pipeline import StreamingPipeline

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

IMPORTED, LOADED = 0.3, 0.9
"""Shares of loading that are done once torch is imported, and once all models are there, to be warmed up."""

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
    context: typer.Context,
    config: Annotated[
        str | None,
        typer.Option(
            callback=take_config,
            is_eager=True,
            help="YAML file of settings: `max-sessions: 4` for --max-sessions. Flags and variables win.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    model: ModelsOption = None,
    student: StudentOption = None,
    lora: LoraOption = None,
    adapter_base: Annotated[
        str,
        typer.Option(
            help="Where weights that adapters change are kept as they were: device, or cpu (slower)."
        ),
    ] = "device",
    stream: StreamOption = None,
    dtype: DtypeOption = "float32",
    precision: PrecisionOption = None,
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    gpus_per_stream: GpusOption = None,
    decoder_rank: DecoderRankOption = None,
    max_memory: MaxMemoryOption = None,
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
    token_file: Annotated[
        str | None, typer.Option(help="File that holds the token, in place of --token.")
    ] = None,
    metrics_token_file: Annotated[
        str | None, typer.Option(help="File that holds the token for metrics.")
    ] = None,
    uds: Annotated[
        str | None, typer.Option(help="Path of a Unix socket to listen on, in place of a port.")
    ] = None,
    ssl_certfile: Annotated[str | None, typer.Option(help="Certificate for HTTPS, PEM.")] = None,
    ssl_keyfile: Annotated[
        str | None, typer.Option(help="Its key, PEM; left out where the certificate's file holds it.")
    ] = None,
    **flags: Any,
) -> None:
    """Serve live streams: HTTP, WebSocket and WebRTC. SIGTERM finishes the chunk under way and exits."""
    require("serve", "serving", *SERVER_MODULES)
    if log_level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"--log-level must be debug, info, warning or error, got {log_level!r}")
    check_threads(threads)
    ranks = ranks_of_stream(gpus_per_stream)
    if ranks == TORCHRUN:
        raise ValueError("a server starts and watches its own ranks: give --gpus-per-stream, not torchrun")
    if ssl_keyfile and not ssl_certfile:
        raise ValueError("--ssl-keyfile needs the certificate too: --ssl-certfile")
    models = parse_models(model or [DEFAULT_MODEL])
    shared = {"--student": student, "--lora": lora, "--stream": stream, "--fit": max_memory}
    gpus = {"--gpus-per-stream": (gpus_per_stream or 1) > 1, "--decoder-rank": decoder_rank is not None}
    check_several(models, {**shared, **gpus, "--ray": ray})
    if uds and ray:
        raise ValueError("--uds does not go with --ray: Ray's proxy listens on a port; leave one of them out")
    for name, file in (("token", token_file), ("metrics_token", metrics_token_file)):
        if file is not None:
            flags[name] = _secret_of(file, flags[name], f"--{name.replace('_', '-')}")
    from pyrf.serve.tls import tls_context

    tls = tls_context(ssl_certfile, ssl_keyfile) if ssl_certfile else None
    options: dict[str, Any] = {
        "student": student,
        "backend": backend,
        "dtype": dtype,
        "precision": precision,
        "device": device,
        "stream": stream_choice(stream or ()),
        "adapters": [parse_adapter(text) for text in lora or ()],
        "adapter_base": adapter_base,
        "gpus_per_stream": ranks,
        "decoder_rank": decoder_rank,
        "max_memory": max_memory,
    }
    with _listening(host, port, uds) as (sock, loopback):
        if not (loopback or flags["token"] or flags["keys"] or insecure):
            raise ValueError(
                f"{host} can be reached from other machines: set a token (--token or PYRF_TOKEN), "
                "or make keys (--keys), or let everyone in with --insecure"
            )
        values = {name: _value(field, flags[name]) for name, field in FLAGGED.items()}
        settings = ServeSettings(loopback=loopback, **values, **unflagged(context))
        url = _url(sock, "http" if tls is None else "https", settings.root_path)

        def started() -> None:
            printing.say(f"pyrf serves {', '.join(models)} at {url}")

        if not ray:
            _serve(models, options, settings, sock, tls, threads, log_level, started)
            return
        address, port, *_ = sock.getsockname()
        sock.close()  # Ray's own proxy listens there
    with needs("ray", "--ray"):
        from pyrf.serve.ray import app as on_ray

    gpu = not device.startswith("cpu")
    (name, source), *_ = models.items()
    replication = on_ray.RayOptions(replicas, max_replicas or replicas, gpu=gpu, ranks=ranks)
    application = on_ray.application(
        {"name": source, **options},
        model=name,
        settings=settings,
        options=replication,
        threads=threads,
        log_level=log_level,
    )
    on_ray.run(
        application,
        address,
        port,
        started,
        drain_s=settings.drain_s,
        certfile=ssl_certfile,
        keyfile=ssl_keyfile or ssl_certfile,
    )


def _secret_of(file: str, given: str | None, flag: str) -> str:
    """What a file holds, but for white space around it.

    Raises:
        ValueError: when there is another value already, or the file cannot be read or holds nothing.
    """
    if given is not None:
        raise ValueError(f"{flag} (or its variable) and {flag}-file are both given; leave one of them out")
    try:
        secret = Path(expanded(file)).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"{flag}-file {file} cannot be read: {reason}") from None
    if not secret:
        raise ValueError(f"{flag}-file {file} is empty; write the token into it")
    return secret


@contextmanager
def _listening(host: str, port: int, uds: str | None) -> Iterator[tuple[socket, bool]]:
    """A listening socket, and whether only this machine can reach it."""
    from pyrf.serve.server import bind, is_loopback
    from pyrf.serve.unix import unix_socket

    if uds is not None:
        with unix_socket(uds) as sock:
            yield sock, True
        return
    with bind(host, port) as sock:
        yield sock, is_loopback(sock)


def _url(sock: socket, scheme: str, root_path: str) -> str:
    """Where people find the server."""
    if sock.family == AF_UNIX:
        return f"unix:{sock.getsockname()}"
    address, port, *_ = sock.getsockname()
    return f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}{root_path and root_path + '/'}"


def _loaded(pipe: StreamingPipeline) -> Callable[[], StreamingPipeline]:
    return lambda: pipe


def _serve(
    models: Mapping[str, str],
    options: Mapping[str, Any],
    settings: ServeSettings,
    sock: socket,
    tls: SSLContext | None,
    threads: int | None,
    log_level: str,
    started: Callable[[], None],
) -> None:
    """Serve from this process; torch and the models are loaded while the port answers already."""
    from pyrf.serve.logs import log_config
    from pyrf.serve.metrics import Metrics
    from pyrf.serve.server import run

    metrics = Metrics()

    def make(report: Callable[[float], None]) -> FastAPI:
        use_threads(threads)  # before loading: ONNX Runtime takes the number when it loads
        from pyrf.serve.app import create_app

        pipes = load_models(models, options, lambda done: report(IMPORTED + done * (LOADED - IMPORTED)))
        (first, load), *others = ((name, _loaded(pipe)) for name, pipe in pipes.items())
        return create_app(load, model=first, others=dict(others), settings=settings, metrics=metrics)

    run(make, settings, sock, metrics=metrics, log_config=log_config(log_level), tls=tls, started=started)
