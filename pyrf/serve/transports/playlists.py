"""Running sessions as HLS: playlists and their newest segments, in memory."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.sessions.session import Session
from pyrf.serve.transports.clips import FragmentedMp4
from pyrf.video.encoding import highest_rate
from pyrf.video.hls import SEGMENT_S

logger = logging.getLogger(__name__)

KIND = "hls"
"""Of the one watcher that all players of a session are."""
LISTED, KEPT = 6, 9
"""Segments in the playlist, and in memory: a player may still load what has just left the playlist."""
IDLE_S = 30.0
"""Seconds after which a playlist that nobody asks for is given up; of an ended session, its end."""
BEGINNING = "init.mp4"
"""The file that a playlist names before all segments."""


@dataclass(frozen=True)
class Segment:
    """A piece of the stream that begins with a key frame.

    Attributes:
        number: from 0 on.
        seconds: how long it plays.
        data: moof and mdat boxes.
    """

    number: int
    seconds: float
    data: bytes


class LivePlaylist:
    """A session as HLS. Watches the session until nobody asks any more. Lives on the event loop.

    Args:
        session: to be watched, from now on.
        executor: encodes.
        chunk_s: seconds of a chunk, at most.

    Attributes:
        init: the boxes before the first segment.
        segments: the newest.
        begun: set once there is one, or will be none.
        closed: set once it is given up.
    """

    def __init__(self, session: Session, executor: Executor, chunk_s: float) -> None:
        self.session, self._executor = session, executor
        self.init = b""
        self.segments: deque[Segment] = deque(maxlen=KEPT)
        self.begun, self.closed = asyncio.Event(), asyncio.Event()
        self._ended = False
        self._longest_s = math.ceil(SEGMENT_S + chunk_s)
        self._watcher = session.watch(KIND)
        self._expiry: asyncio.TimerHandle | None = None
        self._filling = asyncio.create_task(self._fill())
        self.touch()

    def touch(self) -> None:
        """Somebody asks: stay a while. An ended one does not stay longer for it."""
        if self._ended or self.closed.is_set():
            return
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(IDLE_S, self.close)

    def close(self) -> None:
        """Give it up."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._filling.cancel()
        self.session.unwatch(self._watcher)
        self.begun.set()
        self.closed.set()

    def text(self) -> str:
        """The playlist."""
        shown = list(self.segments)[-LISTED:]
        lines = ["#EXTM3U", "#EXT-X-VERSION:7", f"#EXT-X-TARGETDURATION:{self._longest_s}"]
        lines += [f"#EXT-X-MEDIA-SEQUENCE:{shown[0].number if shown else 0}", "#EXT-X-INDEPENDENT-SEGMENTS"]
        lines.append(f'#EXT-X-MAP:URI="{BEGINNING}"')
        for one in shown:
            lines += [f"#EXTINF:{one.seconds:.6f},", f"{one.number}.m4s"]
        if self._ended:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"

    async def _fill(self) -> None:
        """Make segments until the session ends."""
        logger.info("watcher attached", extra={"session": self.session.id, "transport": KIND})
        try:
            await self._encode()
        except Exception as error:
            logger.error("no HLS any more", exc_info=error, extra={"session": self.session.id})
        finally:
            self.session.unwatch(self._watcher)
            logger.info("watcher detached", extra={"session": self.session.id, "transport": KIND})
        self._ended = True
        self.begun.set()

    async def _encode(self) -> None:
        loop, o = asyncio.get_running_loop(), self.session.options
        rate = highest_rate(o.height, o.width, o.fps)
        encoder = await loop.run_in_executor(
            self._executor, lambda: FragmentedMp4(o.height, o.width, o.fps, rate=rate)
        )
        data, waiting, inside = b"", 0.0, 0.0  # seconds of video in the encoder, and in `data`
        while (item := await self._watcher.next()) is not None:
            if not isinstance(item, MadeChunk):
                continue
            data += self._media(await loop.run_in_executor(self._executor, encoder.encode, item.chunk.frames))
            # A chunk leaves the encoder with the first frame of the next one.
            inside, waiting = inside + waiting, item.num_frames / o.fps
            if inside >= SEGMENT_S:
                self._add(inside, data)
                data, inside = b"", 0.0
        if waiting:
            data += self._media(await loop.run_in_executor(self._executor, encoder.finish))
            self._add(inside + waiting, data)

    def _media(self, piece: bytes) -> bytes:
        """The media of a piece of MP4; what comes before all media is kept as the beginning."""
        boxes = list(_boxes(piece))
        if not self.init:
            self.init = b"".join(box for kind, box in boxes if kind in (b"ftyp", b"moov"))
        return b"".join(box for kind, box in boxes if kind in (b"moof", b"mdat"))

    def _add(self, seconds: float, data: bytes) -> None:
        number = self.segments[-1].number + 1 if self.segments else 0
        self.segments.append(Segment(number, seconds, data))
        self.begun.set()


class Playlists:
    """The playlists of a server, one a session. Lives on the event loop.

    Args:
        executor: encodes.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._live: dict[str, LivePlaylist] = {}

    def find(self, id: str, key: str) -> LivePlaylist | None:
        """The playlist of this session, if there is one, for who holds the key to watch it."""
        playlist = self._live.get(id)
        if playlist is None or playlist.closed.is_set():
            return None
        right = secrets.compare_digest(key.encode(), playlist.session.watch_key.encode())
        return playlist if right else None

    def begin(self, session: Session, chunk_s: float) -> LivePlaylist:
        """Watch a session; see `LivePlaylist`."""
        for id in [id for id, one in self._live.items() if one.closed.is_set()]:
            del self._live[id]
        playlist = self._live[session.id] = LivePlaylist(session, self._executor, chunk_s)
        return playlist

    def close(self) -> None:
        """Give all of them up."""
        for playlist in self._live.values():
            playlist.close()


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each box of a piece of MP4."""
    place = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4])
        if size < 8:
            raise ValueError(f"the muxer wrote a box of {size} bytes")
        yield data[place + 4 : place + 8], data[place : place + size]
        place += size
