"""`pyrf osc`: a stream that OSC messages steer."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf import printing
from pyrf.bundle.adapter_file import parse_adapter
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.loading import MaxMemoryOption, load_pipeline
from pyrf.commands.options import (
    DEFAULT_MODEL,
    BackendOption,
    DeviceOption,
    DtypeOption,
    LoraOption,
    ModelOption,
    StreamOption,
    StudentOption,
    ThreadsOption,
)
from pyrf.commands.outputs import opened
from pyrf.extras import require

if TYPE_CHECKING:
    from pyrf.commands.outputs import Output
    from pyrf.integrations.osc import OscListener


def osc(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to show at the beginning.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Where frames go, as of pyrf generate; needed without --server."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Steer a session of this server, in place of a stream of this process.")
    ] = None,
    token: Annotated[str | None, typer.Option(help="The server's token.", envvar="PYRF_TOKEN")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on for OSC.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="UDP port to listen on for OSC; 0 takes a free one.")] = 9000,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines steer.")] = False,
    seed: Annotated[int, typer.Option(help="Of the beginning.")] = 0,
    model: ModelOption = DEFAULT_MODEL,
    student: StudentOption = None,
    lora: LoraOption = None,
    stream: StreamOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    max_memory: MaxMemoryOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Steer a stream by OSC: /pyrf/prompt, /pyrf/adapter/NAME, /pyrf/pause, /pyrf/seed and /pyrf/stop.

    With --server, --model is the name of one of its models.
    """
    require("osc", "OSC", "pythonosc")
    if server is None and output is None:
        raise ValueError("give -o, where frames go, or --server, whose viewers see them")
    if server is not None and (
        lora or student or stream or max_memory or (dtype, device, backend) != ("float32", "cpu", "torch")
    ):
        raise ValueError(
            "the server has its model; leave out --lora, --student, --stream, --dtype, --device, --backend "
            "and --fit"
        )
    adapters, choice = [parse_adapter(text) for text in lora or ()], stream_choice(stream or ())
    from pyrf.integrations.osc import OscListener

    def complain(text: str) -> None:
        printing.tell(f"osc: {text}")

    listener = OscListener(port, host, complain=complain)
    try:
        if not listener.is_loopback and not insecure:
            raise ValueError(
                f"{host} can be reached from other machines, and OSC knows no password: let them steer "
                "with --insecure"
            )
        with nullcontext() if output is None else opened(output, False, None, None, "auto") as place:
            if server is not None:
                # PYRF_MODEL is for models of this machine
                source = context.get_parameter_source("model")
                wanted = model if source is not None and source.name == "COMMANDLINE" else None
                _steer_session(server, token, wanted, listener, place, prompt, seed)
                return
            pipe = load_pipeline(
                model,
                threads=threads,
                student=student,
                backend=backend,
                dtype=dtype,
                device=device,
                stream=choice,
                adapters=adapters,
                max_memory=max_memory,
            )
            from pyrf.commands.osc_show import LocalShow, perform

            listener.adapters = pipe.adapters
            assert place is not None
            metadata = {**pipe.metadata(prompt, seed), "steered": "OSC"}  # it begins so, and changes
            with listener, place.open(pipe.fps, metadata, True) as sink:
                _say_where(listener)
                perform(lambda text, n: LocalShow(pipe, text, n), prompt, seed, listener, sink)
            printing.say(f"{place.shown}: {printing.counted(sink.num_frames, 'frame')}")
    finally:
        listener.close()


def _steer_session(
    url: str,
    token: str | None,
    model: str | None,
    listener: OscListener,
    place: Output | None,
    prompt: str,
    seed: int,
) -> None:
    """The same with a session of a server.

    Args:
        model: one of the server's, by its name there; None: its first.

    Raises:
        ValueError: when the server refuses it, or loses the session.
    """
    require("client", "--server", "httpx", "pydantic", "websockets")
    from pyrf.client import Client
    from pyrf.commands.osc_show import ServedShow, perform, refusals

    with refusals(), Client(url, token) as client:
        info = client.server_info(model)
        listener.adapters = [adapter.name for adapter in info.adapters] if info.adapters_live else ()
        with listener, nullcontext() if place is None else place.open(info.fps, {}, True) as sink:
            _say_where(listener)
            perform(
                lambda text, n: ServedShow(client, text, n, model=model, exact=place is not None),
                prompt,
                seed,
                listener,
                sink,
            )


def _say_where(listener: OscListener) -> None:
    host, port = listener.address
    printing.say(f"listening for OSC on {host}:{port}")
