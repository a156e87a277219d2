"""What a client asks of servers that misbehave, and the right replies."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from pyrf.client import AsyncClient
from pyrf.protocol import FrameHeader
from tests.support.running import PROMPT, TIMEOUT

ERROR = {"error": {"code": "full", "message": "all sessions are taken", "retry_after": 0.1}}
INFO = {
    **{"version": "1", "model": "m", "backend": "b", "device": "cpu", "dtype": "float32", "fps": 16.0},
    **{"height": 32, "width": 32, "chunk_frames": 12, "sessions": 0},
    "limits": {
        **{"max_sessions": 1, "max_session_s": 1, "max_video_frames": 1, "max_prompt_chars": 1},
        **{"max_pixels": 1, "grace_s": 1},
    },
}
CREATED = {
    **{"id": "0123abcd", "state": "detached", "chunk": 0, "prompt_id": 0, "seed": 0, "fps": 16.0},
    **{"height": 2, "width": 2, "pace": "max", "grace_s": 0, "frames_made": 0, "frames_dropped": 0},
    "token": "secret-of-the-session",
}
SESSION = {name: value for name, value in CREATED.items() if name != "token"}
HELLO = json.dumps({"type": "hello", "format": "raw", "session": SESSION})
HEADER = FrameHeader.model_validate(
    {
        **{"chunk": 0, "frame": 0, "pts_s": 0.0, "chunk_frames": 1, "prompt_id": 0, "made_at": 0.0},
        **{"compute_ms": 1.0, "dropped": 0, "width": 2, "height": 2, "format": "raw"},
    }
)


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))


async def ask(url: str, **options: Any) -> Any:
    async with AsyncClient(url, **{"patience": 0, **options}) as client:
        return await client.server_info()


async def create(url: str, **options: Any) -> Any:
    async with AsyncClient(url, **{"patience": 0, **options}) as client:
        return await client.create_session(PROMPT)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
