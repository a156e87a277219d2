"""Limits and policies of a server, apart from the model it serves."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from pyrf.serve.ice import parse_ice_server


@dataclass(frozen=True)
class ServeSettings:
    """How sessions are admitted, paced and guarded.

    Attributes:
        token: what the `Authorization: Bearer` header of new sessions and clips must hold, printable ASCII;
            None lets all in.
        loopback: reached through localhost only, so that a Host header naming anything else is refused.
        origins: web origins, besides the server's own, that may use it.
        max_sessions: sessions and clips at a time.
        max_session_s: seconds that a session may live.
        max_video_frames: of a clip.
        max_prompt_chars: of a prompt.
        max_pixels: of a frame; None for those of the model's own size.
        max_body_bytes: of a request's body and of a WebSocket message.
        creates_per_minute: sessions and clips that one address may start; a minute's worth, and one at least,
            may come at once.
        controls_per_second: control messages a session takes; ten seconds' worth, and one at least, may come
            at once.
        grace_s: seconds that a session outlives its viewer.
        lead_s: seconds that a real-time stream may be ahead of being played.
        buffer_chunks: finished chunks that wait for a viewer.
        max_batch: sessions that are computed in one call.
        jpeg_quality: 1..95.
        ice_servers: STUN and TURN servers for WebRTC beyond the local network, as `parse_ice_server` reads
            them. Viewers are told them, credentials included.
        log_prompts: whether prompts are written to the log.
        id_prefix: what the ids of sessions begin with.

    Raises:
        ValueError: when a limit is not positive and finite, or another value would not do.
    """

    token: str | None = None
    loopback: bool = True
    origins: tuple[str, ...] = ()
    max_sessions: int = 16
    max_session_s: float = 3600.0
    max_video_frames: int = 960
    max_prompt_chars: int = 2000
    max_pixels: int | None = None
    max_body_bytes: int = 65536
    creates_per_minute: float = 60.0
    controls_per_second: float = 5.0
    grace_s: float = 30.0
    lead_s: float = 0.5
    buffer_chunks: int = 2
    max_batch: int = 4
    jpeg_quality: int = 90
    ice_servers: tuple[str, ...] = ()
    log_prompts: bool = False
    id_prefix: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < math.inf:
                if field.name in ("grace_s", "lead_s") and value == 0:
                    continue
                raise ValueError(f"{field.name} must be positive and finite, got {value}")
        for text in self.ice_servers:
            parse_ice_server(text)
        if self.jpeg_quality > 95:
            raise ValueError(f"jpeg_quality must be 1..95, got {self.jpeg_quality}")
        if self.token is not None and not re.fullmatch(r"[!-~]([ -~]*[!-~])?", self.token):
            raise ValueError(  # no header can hold it, so that nobody would be let in
                "token must be printable ASCII without spaces around it, and not empty; "
                "choose another, or None to let all in"
            )
