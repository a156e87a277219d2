"""Limits and policies of a server, apart from the model it serves, each with its flag of `pyrf serve`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

SECRETS = ("token", "ice_servers")
"""Settings that hold passwords."""


@dataclass(frozen=True)
class Flag:
    """How the command line asks for a setting.

    Attributes:
        name: as `--max-sessions`.
        unit: how many of the setting's units one of the flag is, as 60 for minutes of a setting in seconds.
        envvar: the variable that stands in for the flag.
    """

    name: str
    unit: float | None = None
    envvar: str | None = None


def _setting(default: Any, help: str, flag: Flag | str | None = None, *, or_zero: bool = False) -> Any:
    """A field of `ServeSettings`.

    Args:
        help: what it is, in a line; `pyrf serve --help` shows it.
        flag: how the command line asks for it, if it does.
        or_zero: whether a number may be 0; it must be positive otherwise.
    """
    flag = Flag(flag) if isinstance(flag, str) else flag
    return field(default=default, metadata={"help": help, "flag": flag, "or_zero": or_zero})


@dataclass(frozen=True)
class ServeSettings:
    """How sessions are admitted, paced and guarded. `*_s` are seconds.

    Raises:
        ValueError: when a limit is not positive and finite, or another value would not do.
    """

    # Printable ASCII, in the `Authorization: Bearer` header of new sessions and clips; None lets all in.
    token: str | None = _setting(
        None, "What clients must know to begin a session.", Flag("--token", envvar="PYRF_TOKEN")
    )
    # A Host header that names anything but this machine is refused.
    loopback: bool = _setting(True, "Whether the server is reached through localhost only.")
    origins: tuple[str, ...] = _setting(
        (), "Web origin whose pages may use the server too; may be repeated.", "--origin"
    )
    # As `parse_ice_server` reads them. Viewers are told them, credentials included.
    ice_servers: tuple[str, ...] = _setting(
        (), "stun:HOST or turn:USER:PASSWORD@HOST, for WebRTC; may be repeated.", "--ice-server"
    )
    max_sessions: int = _setting(16, "Sessions and clips at a time.", "--max-sessions")
    max_batch: int = _setting(4, "Sessions computed in one call.", "--max-batch")
    max_session_s: float = _setting(3600.0, "Longest life of a session.", Flag("--max-minutes", unit=60))
    max_video_frames: int = _setting(960, "Frames of a clip.")
    max_prompt_chars: int = _setting(2000, "Characters of a prompt.")
    max_pixels: int | None = _setting(None, "Pixels of a frame; by default those of the model's own size.")
    max_body_bytes: int = _setting(65536, "Bytes of a request's body, and of a WebSocket message.")
    grace_s: float = _setting(30.0, "Seconds a session outlives its viewer.", "--grace", or_zero=True)
    # A minute's worth may come at once, and at least one.
    creates_per_minute: float = _setting(60.0, "Sessions one address may begin.", "--creates-per-minute")
    # Ten seconds' worth may come at once, and at least one.
    controls_per_second: float = _setting(5.0, "Control messages that a session takes.")
    lead_s: float = _setting(0.5, "Seconds a real-time stream may be ahead of being played.", or_zero=True)
    buffer_chunks: int = _setting(2, "Finished chunks that wait for a viewer.")
    jpeg_quality: int = _setting(90, "Of JPEG frames, 1..95.")
    log_prompts: bool = _setting(False, "Write prompts to the log.", "--log-prompts")
    id_prefix: str = _setting("", "What the ids of sessions begin with.")

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < math.inf:
                if one.metadata["or_zero"] and value == 0:
                    continue
                raise ValueError(f"{one.name} must be positive and finite, got {value}")
        if self.ice_servers:
            from pyrf.serve.ice import (
                parse_ice_server,  # needs the extra, and the command line reads flags here
            )

            for text in self.ice_servers:
                parse_ice_server(text)
        if self.jpeg_quality > 95:
            raise ValueError(f"jpeg_quality must be 1..95, got {self.jpeg_quality}")
        if self.token is not None and not re.fullmatch(r"[!-~]([ -~]*[!-~])?", self.token):
            raise ValueError(  # no header can hold it, so that nobody would be let in
                "token must be printable ASCII without spaces around it, and not empty; "
                "choose another, or None to let all in"
            )

    def __repr__(self) -> str:
        """What differs from the defaults; of what holds secrets only that it is set."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        changed = [one.name for one in fields(self) if values[one.name] != one.default]
        shown = [f"{name}={'...' if name in SECRETS else repr(values[name])}" for name in changed]
        return f"ServeSettings({', '.join(shown)})"
