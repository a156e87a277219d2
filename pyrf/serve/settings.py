"""Limits and policies of a server, apart from the model it serves, each with its flag of `pyrf serve`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pyrf.endpoints.expand import PromptExpander
from pyrf.endpoints.moderate import HttpModerator
from pyrf.serve.hosts import parse_allowed_host, parse_origin, parse_root_path
from pyrf.serve.targets import parse_allowed

SHORTEST_TOKEN, FEWEST_CHARACTERS = 16, 6
"""Of a token of a server that other machines can reach."""


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


def _setting(
    default: Any,
    help: str,
    flag: Flag | str | None = None,
    *,
    or_zero: bool = False,
    secret: bool = False,
) -> Any:
    """A field of `ServeSettings`.

    Args:
        help: what it is, in a line; `pyrf serve --help` shows it.
        flag: how the command line asks for it, if it does.
        or_zero: whether a number may be 0; it must be positive otherwise.
        secret: whether `repr` leaves it out.
    """
    flag = Flag(flag) if isinstance(flag, str) else flag
    metadata = {"help": help, "flag": flag, "or_zero": or_zero}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True)
class ServeSettings:
    """How sessions are admitted, paced and guarded. `*_s` are seconds.

    Raises:
        ValueError: when a limit is not positive and finite, or another value would not do.
    """

    # Printable ASCII, in the `Authorization: Bearer` header of new sessions and clips; None lets all in.
    token: str | None = _setting(
        None,
        "What clients must know to begin a session.",
        Flag("--token", envvar="PYRF_TOKEN"),
        secret=True,
    )
    # As `pyrf keys` writes it; read anew whenever it changes. New sessions and clips need one of its keys.
    keys: str | None = _setting(None, "File of named API keys, which `pyrf keys` makes.", "--keys")
    # As `token`. What begins sessions opens the metrics too, what opens the metrics does nothing else.
    metrics_token: str | None = _setting(
        None,
        "What GET /metrics takes in place of the token.",
        Flag("--metrics-token", envvar="PYRF_METRICS_TOKEN"),
        secret=True,
    )
    # A Host header that names anything but this machine is refused.
    loopback: bool = _setting(True, "Whether the server is reached through localhost only.")
    # As `parse_allowed_host` reads them.
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Name that the server answers to, or *.NAME; may be repeated.", "--allowed-host"
    )
    root_path: str = _setting("", "Path of a larger site below which the server stands.", "--root-path")
    # As `parse_origin` reads them.
    origins: tuple[str, ...] = _setting(
        (), "Web origin whose pages may use the server too; may be repeated.", "--origin"
    )
    # Addresses and networks, as `parse_network` reads them.
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        "Proxy whose X-Forwarded headers count, or its network; may be repeated.",
        "--trusted-proxy",
    )
    # As `parse_ice_server` reads them. Viewers are told them, credentials included.
    ice_servers: tuple[str, ...] = _setting(
        (),
        "stun:HOST or turn:USER:PASSWORD@HOST, for WebRTC; may be repeated.",
        Flag("--ice-server", envvar="PYRF_ICE_SERVERS"),
        secret=True,
    )
    webrtc: bool = _setting(True, "Whether video goes over WebRTC too.", "--webrtc/--no-webrtc")
    # As `parse_ports` reads it; a connection takes a port of each of the machine's addresses.
    webrtc_ports: str | None = _setting(
        None, "UDP ports of WebRTC, as 50000-50100; by default any.", "--webrtc-ports"
    )
    # On loopback it also opens UDP ports to other machines.
    nat_address: str | None = _setting(
        None, "IP address that WebRTC viewers reach this machine at, if not its own.", "--nat-address"
    )
    max_sessions: int = _setting(16, "Sessions and clips at a time.", "--max-sessions")
    # All sessions share the model's weights.
    shared_adapters: bool = _setting(
        False, "Let every viewer change the adapters' strengths, for all viewers.", "--shared-adapters"
    )
    max_batch: int = _setting(4, "Sessions computed in one call.", "--max-batch")
    max_session_s: float = _setting(3600.0, "Longest life of a session.", Flag("--max-minutes", unit=60))
    max_video_frames: int = _setting(960, "Frames of a clip.")
    keep_clips_s: float = _setting(300.0, "Seconds that a finished clip may be asked for again.")
    max_kept_bytes: int = _setting(268_435_456, "Bytes of all finished clips that are kept.")
    max_prompt_chars: int = _setting(2000, "Characters of a prompt.")
    max_pixels: int | None = _setting(None, "Pixels of a frame; by default those of the model's own size.")
    max_body_bytes: int = _setting(65536, "Bytes of a request's body, and of a WebSocket message.")
    # As a file; in a body that holds one, base64 takes a third more.
    max_image_bytes: int = _setting(524288, "Bytes of an image that a session starts from.")
    max_image_pixels: int = _setting(8_388_608, "Pixels of an image that a session starts from.")
    grace_s: float = _setting(30.0, "Seconds a session outlives its viewer.", "--grace", or_zero=True)
    # A minute's worth may come at once, and at least one.
    creates_per_minute: float = _setting(60.0, "Sessions one address may begin.", "--creates-per-minute")
    # Ten seconds' worth may come at once, and at least one.
    controls_per_second: float = _setting(5.0, "Control messages that a session takes.")
    max_source_bytes: int = _setting(262_144, "Bytes of a JPEG that a viewer sends to be restyled.")
    max_source_pixels: int = _setting(2_100_000, "Pixels of such a JPEG.")
    # Two seconds' worth may come at once.
    source_frames_per_second: float = _setting(30.0, "JPEGs that a session takes; others are lost.")
    max_sessions_per_address: int | None = _setting(
        None,
        "Of those, what one address may hold; by default three quarters.",
        "--max-sessions-per-address",
    )
    max_clips_per_address: int = _setting(
        4, "Clips one address may have at a time.", "--max-clips-per-address"
    )
    max_detached_per_address: int = _setting(
        8, "Sessions without a viewer that one address may hold.", "--max-detached-per-address"
    )
    pause_s: float = _setting(300.0, "Longest pause of a session.", Flag("--pause-minutes", unit=60))
    max_connections: int = _setting(
        512, "Connections at a time; the limit of open files may lower it.", "--max-connections"
    )
    max_connections_per_address: int = _setting(
        128, "Of those, what one address may hold.", "--max-connections-per-address"
    )
    header_timeout_s: float = _setting(10.0, "Seconds for a TLS handshake, and for a request's header.")
    body_timeout_s: float = _setting(20.0, "Seconds for a request's body, and for a WebSocket message.")
    idle_timeout_s: float = _setting(30.0, "Seconds a connection may wait for its next request.")
    send_timeout_s: float = _setting(
        20.0, "Seconds a viewer may read nothing before it is dropped.", "--send-timeout"
    )
    # Two seconds' worth may come at once.
    requests_per_second: float = _setting(100.0, "Requests of an address that are answered at once.")
    max_header_bytes: int = _setting(16384, "Bytes of a request's header.")
    max_watchers: int = _setting(8, "Who may watch a session beside its viewer, at a time.", "--max-watchers")
    # As `parse_allowed` reads them. Whoever has a session may send it there.
    allow_outputs: tuple[str, ...] = _setting(
        (), "Address that sessions may be sent to, or below it; may be repeated.", "--allow-output"
    )
    output_folder: str | None = _setting(
        None, "Folder that sessions may be written into as files.", "--output-folder"
    )
    max_outputs: int = _setting(2, "Outputs of a session at a time.", "--max-outputs")
    max_output_bytes: int = _setting(4_294_967_296, "Bytes of all files of the folder of outputs.")
    drain_s: float = _setting(10.0, "Seconds that the end may take after SIGTERM.", "--drain-seconds")
    lead_s: float = _setting(0.5, "Seconds a real-time stream may be ahead of being played.", or_zero=True)
    buffer_chunks: int = _setting(2, "Finished chunks that wait for a viewer.")
    jpeg_quality: int = _setting(90, "Of JPEG frames, 1..95.")
    # Base URLs of OpenAI-compatible APIs; their keys are $PYRF_EXPAND_KEY and $PYRF_MODERATE_KEY.
    expand: str | None = _setting(None, "API of a language model that writes prompts out.", "--expand")
    expand_model: str = _setting("default", "The language model's name there.", "--expand-model")
    moderate: str | None = _setting(None, "API that may refuse prompts and frames.", "--moderate")
    moderate_chunks: int = _setting(
        0, "A frame of each so many chunks is moderated too; 0: of none.", "--moderate-chunks", or_zero=True
    )
    endpoint_timeout_s: float = _setting(10.0, "Seconds for a call of such an API.", "--endpoint-timeout")
    # As `pyrf.video.Watermark` takes it.
    watermark: str | None = _setting(None, "Text, or a .png, that every frame shows.", "--watermark")
    log_prompts: bool = _setting(False, "Write prompts to the log.", "--log-prompts")
    id_prefix: str = _setting("", "What the ids of sessions begin with.")

    @property
    def is_open(self) -> bool:
        """Whether everyone may begin sessions."""
        return self.token is None and self.keys is None

    @property
    def max_opening_bytes(self) -> int:
        """Of the body of a request that may hold an image."""
        return self.max_body_bytes + 4 * math.ceil(self.max_image_bytes / 3)

    @property
    def sessions_per_address(self) -> int:
        """Sessions and clips that one address may hold; some seats are left for others."""
        return self.max_sessions_per_address or math.ceil(self.max_sessions * 3 / 4)

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < math.inf:
                if one.metadata["or_zero"] and value == 0:
                    continue
                raise ValueError(f"{one.name} must be positive and finite, got {value}")
        self._normalise("origins", tuple(map(parse_origin, self.origins)))
        self._normalise("allowed_hosts", tuple(map(parse_allowed_host, self.allowed_hosts)))
        for text in self.allow_outputs:
            parse_allowed(text)
        if self.output_folder is not None and not Path(self.output_folder).is_dir():
            raise ValueError(f"--output-folder {self.output_folder!r} is no folder; make it first")
        self._normalise("root_path", parse_root_path(self.root_path))
        if "*" in self.origins and self.is_open:
            raise ValueError(
                "--origin '*' lets every web page use the server; set a token, or name the origins"
            )
        if self.keys is not None:
            from pyrf.serve.keys.file import (
                read_keys,
            )  # needs the extra, and the command line reads flags here

            read_keys(self.keys)
        if self.expand is not None:
            PromptExpander(self.expand, timeout_s=self.endpoint_timeout_s)
        if self.moderate is not None:
            HttpModerator(self.moderate, timeout_s=self.endpoint_timeout_s)
        if self.watermark is not None:
            from pyrf.video.watermark import Watermark

            Watermark(self.watermark)
        if self.trusted_proxies:
            from pyrf.serve.address import Proxies

            Proxies(self.trusted_proxies)
        if self.ice_servers or self.webrtc_ports or self.nat_address:
            from pyrf.serve import ice  # needs the extra, and the command line reads flags here

            for text in self.ice_servers:
                ice.parse_ice_server(text)
            if self.webrtc_ports:
                ice.parse_ports(self.webrtc_ports)
            if self.nat_address:
                ice.check_nat_address(self.nat_address)
        if self.jpeg_quality > 95:
            raise ValueError(f"jpeg_quality must be 1..95, got {self.jpeg_quality}")
        for name in ("token", "metrics_token"):
            self._check_token(name, getattr(self, name))

    def _check_token(self, name: str, token: str | None) -> None:
        if token is None:
            return
        if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", token):
            raise ValueError(  # no header can hold it, so that nobody would be let in
                f"{name} must be printable ASCII without spaces around it, and not empty; "
                "choose another, or None to let all in"
            )
        if not self.loopback and (len(token) < SHORTEST_TOKEN or len(set(token)) < FEWEST_CHARACTERS):
            raise ValueError(
                f"{name} can be guessed, and other machines reach this server: take at least "
                f"{SHORTEST_TOKEN} characters, {FEWEST_CHARACTERS} of them different, as from "
                "`python -c 'import secrets; print(secrets.token_urlsafe())'`"
            )

    def _normalise(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen for everyone else

    def __repr__(self) -> str:
        """What differs from the defaults; of what holds secrets only that it is set."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        secret = {one.name for one in fields(self) if not one.repr}
        changed = [one.name for one in fields(self) if values[one.name] != one.default]
        shown = [f"{name}={repr(values[name]) if name not in secret else '...'}" for name in changed]
        return f"ServeSettings({', '.join(shown)})"
