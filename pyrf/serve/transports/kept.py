"""Finished clips, kept for a while: `GET /v1/videos/{id}`, whole or in parts."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pyrf.serve.settings import ServeSettings


@dataclass(eq=False)
class Keeping:
    """A clip that is being made.

    Attributes:
        id: that opens it; nobody guesses it.
        path: its file.
        size: in bytes, so far.
        whole: whether all of it is there.
    """

    id: str
    path: Path
    file: BinaryIO
    size: int = 0
    whole: bool = False


class KeptClips:
    """The clips of a server, as files of a temporary folder. Lives on the event loop.

    When there is no room the oldest clips go. A clip that alone is too large is not kept.

    Args:
        settings: how long, and how many bytes in all.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="pyrf-clips-")
        self._clips: dict[str, Keeping] = {}

    def begin(self) -> Keeping:
        """Keep a clip that is about to be made."""
        id = self._settings.id_prefix + secrets.token_urlsafe(32)
        path = Path(self._folder.name) / secrets.token_hex(8)
        clip = self._clips[id] = Keeping(id, path, path.open("wb"))
        return clip

    async def add(self, clip: Keeping, piece: bytes) -> None:
        """The next piece of a clip."""
        if not self._make_room(clip, len(piece)):
            return
        clip.size += len(piece)
        try:
            await asyncio.to_thread(clip.file.write, piece)
        except OSError:  # the disk is full: whoever asked for the clip has it all the same
            self.drop(clip)

    def finish(self, clip: Keeping) -> None:
        """All of it is there; it goes after its time."""
        if clip.id not in self._clips:
            return
        clip.file.close()
        clip.whole = True
        asyncio.get_running_loop().call_later(self._settings.keep_clips_s, self.drop, clip)

    def drop(self, clip: Keeping) -> None:
        """It is not wanted, or its time is over."""
        if self._clips.pop(clip.id, None) is not None:
            clip.file.close()
            clip.path.unlink(missing_ok=True)

    def find(self, id: str) -> Path | None:
        """The file of a clip that is whole."""
        clip = self._clips.get(id)
        return clip.path if clip is not None and clip.whole else None

    def _make_room(self, clip: Keeping, more: int) -> bool:
        """Whether a clip that is still kept has room for more bytes; others may go for it."""
        total = more + sum(one.size for one in self._clips.values())
        for other in [one for one in self._clips.values() if one.whole]:
            if total <= self._settings.max_kept_bytes:
                break
            total -= other.size
            self.drop(other)
        if total > self._settings.max_kept_bytes:
            self.drop(clip)
        return clip.id in self._clips

    def close(self) -> None:
        """Remove all of them."""
        for clip in list(self._clips.values()):
            self.drop(clip)
        self._folder.cleanup()
