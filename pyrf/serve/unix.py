"""A Unix socket to listen on: a file, which only a proxy of this machine can reach."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyrf.files import expanded

MODE = 0o660
"""Who may connect: the server's user and its group."""
BACKLOG = 512
_LONGEST = 107
"""Bytes of a path that the system takes."""


@contextmanager
def unix_socket(path: str) -> Iterator[socket.socket]:
    """A listening socket; its file is removed at the end.

    What a server that was killed has left there is replaced. Anything else is left alone.

    Raises:
        ValueError: when there is a live server or another file, or no socket can be made there.
    """
    place = Path(expanded(path)).absolute()
    if len(os.fsencode(place)) > _LONGEST:
        raise ValueError(
            f"the path of a Unix socket has at most {_LONGEST} bytes, got {place}; choose another"
        )
    _remove_dead(place)
    sock = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o777 & ~MODE)
    try:
        sock.bind(os.fspath(place))
    except OSError as error:
        sock.close()
        raise ValueError(f"cannot listen on {place}: {error.strerror}; choose another path") from None
    finally:
        os.umask(mask)
    made = place.stat()
    sock.listen(BACKLOG)
    try:
        yield sock
    finally:
        sock.close()
        with suppress(OSError):
            if os.path.samestat(place.stat(), made):  # not that of a server which came after
                place.unlink()


def _remove_dead(place: Path) -> None:
    """Make room where a server was killed."""
    try:
        mode = place.lstat().st_mode
    except OSError:  # nothing is there; or `bind` says what is wrong
        return
    if not stat.S_ISSOCK(mode):
        raise ValueError(f"cannot listen on {place}: it is there already and no socket; choose another path")
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(1.0)  # it may live and be too busy to answer
        try:
            knock.connect(os.fspath(place))
        except ConnectionRefusedError:
            place.unlink()
            return
        except OSError as error:
            raise ValueError(
                f"cannot listen on {place}: {error}; remove it, or choose another path"
            ) from None
    raise ValueError(
        f"cannot listen on {place}: a server listens there already; stop it, or choose another path"
    )
