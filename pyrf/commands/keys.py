"""`pyrf keys`: the API keys of a server, in a file that it reads anew whenever it changes."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pyrf import printing
from pyrf.extras import require

RIGHTS = ("sessions", "metrics", "admin")

FileOption = Annotated[
    str,
    typer.Option("--keys", envvar="PYRF_SERVE_KEYS", help="File of keys, as `pyrf serve` takes it."),
]
NameArgument = Annotated[str, typer.Argument(help="Name of the key, for logs and metrics.")]

app = typer.Typer(help="Make, list and revoke API keys of a server.", no_args_is_help=True)


@app.command()
def new(
    name: NameArgument,
    file: FileOption,
    may: Annotated[
        list[str] | None,
        typer.Option(help="What it opens: sessions (the default), metrics or admin; may be repeated."),
    ] = None,
    sessions: Annotated[int | None, typer.Option(help="Sessions and clips it may hold at a time.")] = None,
    minutes_per_day: Annotated[
        float | None, typer.Option(help="Minutes of video its sessions may show in a day of UTC.")
    ] = None,
) -> None:
    """Make a key and print it; nobody can see it again. Servers that run take it within a second."""
    _check()
    from pyrf.serve.keys.file import editing
    from pyrf.serve.keys.key import NAME, Key, hash_of, new_secret

    if not re.fullmatch(NAME, name):
        raise ValueError(f"a name has up to 40 letters, digits, dots, dashes and underscores, got {name!r}")
    if wrong := [right for right in may or () if right not in RIGHTS]:
        raise ValueError(f"--may must be sessions, metrics or admin, got {wrong[0]!r}")
    for flag, value in (("--sessions", sessions), ("--minutes-per-day", minutes_per_day)):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{flag} must be positive and finite, got {value}")
    secret = new_secret()
    rights: Any = tuple(dict.fromkeys(may or ("sessions",)))
    with editing(file) as keys:
        if any(key.name == name for key in keys):
            raise ValueError(f"there is a key {name!r} already; revoke it first, or choose another name")
        keys.append(
            Key(
                name=name,
                sha256=hash_of(secret),
                may=rights,
                sessions=sessions,
                seconds_per_day=None if minutes_per_day is None else 60 * minutes_per_day,
                created=datetime.now(UTC).date(),
            )
        )
    printing.tell(f"{file} has the hash of key {name!r}; this is the key, which cannot be shown again:")
    printing.deliver(secret)


@app.command("list")
def list_(file: FileOption) -> None:
    """Print the names of keys, what they may do, and their quotas."""
    _check()
    from pyrf.serve.keys.file import read_keys

    rows: list[tuple[object, ...]] = [("name", "may", "sessions", "minutes per day", "created")]
    for key in read_keys(file):
        minutes = None if key.seconds_per_day is None else key.seconds_per_day / 60
        quotas = ("any" if quota is None else f"{quota:g}" for quota in (key.sessions, minutes))
        rows.append((key.name, ", ".join(key.may), *quotas, key.created or "unknown"))
    printing.deliver(printing.table(rows))


@app.command()
def revoke(name: NameArgument, file: FileOption) -> None:
    """Remove a key. Servers that run refuse it within a second, and end its sessions."""
    _check()
    from pyrf.serve.keys.file import editing, read_keys

    read_keys(file)  # a file that is not there has nothing to revoke
    with editing(file) as keys:
        names = [key.name for key in keys]
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"`pyrf keys list --keys {file}` lists them"
            raise ValueError(f"{file} has no key {name!r}; {hint}")
        del keys[names.index(name)]
    printing.say(f"revoked {name!r}")


def _check() -> None:
    require("serve", "pyrf keys", "pydantic")
