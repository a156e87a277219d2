"""`pyrf admin`: what runs on a server, and whether it takes new sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf import printing
from pyrf.extras import require
from pyrf.moments import format_time

if TYPE_CHECKING:
    from pyrf.client import Admin
    from pyrf.protocol import AdminSessions

UrlOption = Annotated[str, typer.Option(help="URL of the server.")]
TokenOption = Annotated[
    str,
    typer.Option(envvar="PYRF_TOKEN", help="A key with the right `admin`; better in the variable than here."),
]
LOCAL = "http://127.0.0.1:8000"

app = typer.Typer(help="Look after a server that runs.", no_args_is_help=True)


@app.command()
def sessions(token: TokenOption, url: UrlOption = LOCAL) -> None:
    """Print all live sessions, the oldest first."""
    with _admin(url, token) as server:
        found = server.overview()
    _show(found)


@app.command()
def end(
    id: Annotated[str, typer.Argument(help="Id of a session.", metavar="ID")],
    token: TokenOption,
    url: UrlOption = LOCAL,
) -> None:
    """End a session."""
    with _admin(url, token) as server:
        server.end(id)
    printing.say(f"ended {id}")


@app.command()
def drain(token: TokenOption, url: UrlOption = LOCAL) -> None:
    """Let the server take no new sessions, and print those that still run."""
    with _admin(url, token) as server:
        found = server.drain()
    _show(found)


@app.command()
def undrain(token: TokenOption, url: UrlOption = LOCAL) -> None:
    """Let the server take new sessions again."""
    with _admin(url, token) as server:
        server.undrain()
    printing.say(f"{url} takes new sessions")


@contextmanager
def _admin(url: str, token: str) -> Iterator[Admin]:
    require("client", "pyrf admin", "httpx", "websockets", "pydantic")
    from pyrf.client import Admin, ClientError

    try:
        with Admin(url, token, patience=0.0) as server:
            yield server
    except ClientError as error:
        raise ValueError(str(error)) from error


def _show(found: AdminSessions) -> None:
    rows: list[tuple[object, ...]] = [("id", "key", "address", "model", "state", "age", "viewers", "frames")]
    for one in found.sessions:
        state = f"{one.state}, clip" if one.clip else one.state
        age = format_time(float(round(one.age_s)))
        key, frames = one.key or "-", one.frames_made
        rows.append((one.id, key, one.address, one.model, state, age, one.viewers, frames))
    printing.deliver(printing.table(rows))
    if found.draining:
        printing.tell("the server takes no new sessions")
