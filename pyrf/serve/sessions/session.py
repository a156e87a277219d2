"""A session: a stream, the chunks that wait for its viewer, and the state between them.

Everything here belongs to the event loop; only what `start_chunk` returns runs elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrf.protocol import ClosingMessage, EndReason, FrameFields, Message, Pace, SessionInfo, State
from pyrf.serve.sessions.tracing import SessionSpan

if TYPE_CHECKING:
    from pyrf.streaming.stream import Chunk, Stream

FAREWELL_S = 5.0
"""Seconds that a viewer has to take what is left when its session ends."""
FIRST_GRACE_S = 10.0
"""Seconds that a new session waits for its first viewer at least, whatever its grace period."""

_ENDINGS: dict[EndReason, str] = {
    "closed": "the session was closed",
    "expired": "the session outlived its grace period without a viewer",
    "max_length": "the session reached the server's longest length",
    "shutdown": "the server shuts down",
    "failed": "the session failed; the server's log says why",
    "replaced": "another viewer took the session over",
}


@dataclass(frozen=True, eq=False)
class MadeChunk:
    """A finished chunk on its way to a viewer.

    Attributes:
        first_frame: index of its first frame in the stream.
        prompt_id: of the prompt it shows.
        made_at: Unix time.
    """

    chunk: Chunk
    first_frame: int
    prompt_id: int
    made_at: float

    @property
    def num_frames(self) -> int:
        return len(self.chunk.frames)

    def frame_fields(self, index: int, fps: float, dropped: int) -> FrameFields:
        """What viewers are told of the `index`-th frame of this chunk; `dropped` is the session's count."""
        frame = self.first_frame + index
        return FrameFields(
            chunk=self.chunk.index,
            frame=frame,
            pts_s=frame / fps,
            frames_in_chunk=self.num_frames,
            prompt_id=self.prompt_id,
            made_at=self.made_at,
            compute_ms=1e3 * self.chunk.timing.total,
            dropped=dropped,
        )


@dataclass(frozen=True)
class SessionOptions:
    """What a session was asked to be."""

    seed: int
    height: int
    width: int
    fps: float
    pace: Pace
    grace_s: float
    lead_s: float
    buffer_chunks: int


class Viewer:
    """One connection's view of a session; the next one to attach takes its place."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._wake = asyncio.Event()
        self._messages: deque[Message] = deque(maxlen=32)
        self.ended = asyncio.Event()
        self.ending: EndReason | None = None

    @property
    def takes_frames(self) -> bool:
        """Whether frames go to it: as long as it has not ended, and the rest of them after some endings."""
        return self.ending in (None, "max_length", "shutdown", "failed")

    async def next(self) -> MadeChunk | Message | None:
        """What to send next; None when the connection is to be closed, `ending` says why."""
        while True:
            if self._messages:
                return self._messages.popleft()
            if self.takes_frames:
                made = self._session.take()
                if made is not None:
                    return made
            if self.ending is not None:
                return None
            self._wake.clear()
            await self._wake.wait()

    def messages(self) -> list[Message]:
        """The messages that wait, without waiting for one."""
        waiting = list(self._messages)
        self._messages.clear()
        return waiting

    def announce(self, message: Message) -> None:
        """Queue a message before all chunks; of too many the oldest are dropped."""
        self._messages.append(message)
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def end(self, reason: EndReason) -> None:
        self.ending = self.ending or reason
        self.ended.set()
        self._wake.set()

    def closing_message(self) -> ClosingMessage:
        reason = self.ending or "closed"
        return ClosingMessage(reason=reason, message=_ENDINGS[reason])


class Session:
    """A stream that viewers attach to, one at a time.

    A session without a viewer makes its first chunk, so that it can be shown at once, and then waits.
    Finished chunks wait for the viewer in a short buffer. When that is full a real-time session drops the
    oldest chunk, any other waits for room.

    Args:
        changed: called whenever the session may have become ready for a chunk.
        on_end: called once, when the session ends.
    """

    def __init__(
        self,
        id: str,
        token: str,
        stream: Stream,
        options: SessionOptions,
        *,
        changed: Callable[[], None],
        on_end: Callable[[Session, EndReason], None],
    ) -> None:
        self.id, self.token, self.options = id, token, options
        self.span = SessionSpan(id, options)
        self.created = self._free_since = time.monotonic()
        self._deadline = 0.0  # first of all: someone looks at an empty screen
        self.chunks_started = 0
        self.frames_made = self.frames_dropped = 0
        self.newest_prompt_id = self._prompt_id = 0
        self.under_way = False
        self.ending: EndReason | None = None
        self.viewer: Viewer | None = None
        self.unwatched = asyncio.Event()
        self.unwatched.set()
        self.stream = stream
        self._pending: tuple[str, bool, int] | None = None
        self._paused = False
        self._buffer: deque[MadeChunk] = deque()
        self._changed, self._on_end = changed, on_end
        self._expiry: asyncio.TimerHandle | None = None
        self._await_viewer(max(options.grace_s, FIRST_GRACE_S))

    # State

    @property
    def state(self) -> State:
        if self.ending is not None:
            return "ended"
        if self.viewer is None:
            return "detached"
        return "paused" if self._paused else "running"

    def info(self) -> SessionInfo:
        o = self.options
        return SessionInfo(
            id=self.id,
            state=self.state,
            chunk=self.chunks_started,
            prompt_id=self.newest_prompt_id,
            seed=o.seed,
            fps=o.fps,
            height=o.height,
            width=o.width,
            pace=o.pace,
            grace_s=o.grace_s,
            frames_made=self.frames_made,
            frames_dropped=self.frames_dropped,
        )

    # Controls

    def set_prompt(self, prompt: str, recache: bool) -> tuple[int, int]:
        """Switch to a prompt that is known to be good: its id, and the chunk that shows it first."""
        self.newest_prompt_id += 1
        self._pending = prompt, recache, self.newest_prompt_id
        return self.newest_prompt_id, self.chunks_started

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._unblock()

    def announce(self, message: Message) -> None:
        """Tell the viewer, if there is one, what was done from elsewhere."""
        if self.viewer is not None:
            self.viewer.announce(message)

    # The viewer's side

    def attach(self) -> Viewer:
        """Become the session's viewer; of an ended session one that ends at once."""
        if self.viewer is not None:
            self.viewer.end("replaced")
        if self._expiry is not None:
            self._expiry.cancel()
        self.viewer = Viewer(self)
        self.unwatched.clear()
        if self.ending is not None:
            self.viewer.end(self.ending)
        waiting = sum(made.num_frames for made in self._buffer)
        self._deadline = max(self._deadline, time.monotonic() + waiting / self.options.fps)
        self._unblock()
        return self.viewer

    def detach(self, viewer: Viewer) -> None:
        """The connection is gone: keep the session for its grace period, unless another took it over."""
        if viewer is self.viewer:
            self.viewer = None
            self.unwatched.set()
            if self.ending is None:
                self._await_viewer(self.options.grace_s)
            else:
                self._buffer.clear()

    def _await_viewer(self, seconds: float) -> None:
        self._expiry = asyncio.get_running_loop().call_later(seconds, self.end, "expired")

    def take(self) -> MadeChunk | None:
        """The oldest chunk that waits."""
        if not self._buffer:
            return None
        made = self._buffer.popleft()
        self._unblock()
        return made

    def _unblock(self) -> None:
        """What kept the next chunk from being made may be gone."""
        self._free_since = time.monotonic()
        self._changed()

    # The scheduler's side

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.options.height, self.options.width

    @property
    def deadline(self) -> float:
        """When the viewer will have played all that was made, on the monotonic clock."""
        return self._deadline

    def ready_at(self) -> float | None:
        """From when on the next chunk may be made; None when something else has to happen first."""
        if self.ending is not None or self.under_way:
            return None
        if self.chunks_started == 0:
            return self.created
        if self.viewer is None or self._paused:
            return None
        if self.options.pace == "max":
            return None if len(self._buffer) >= self.options.buffer_chunks else self._free_since
        return max(self._free_since, self._deadline - self.options.lead_s)

    def start_chunk(self) -> Callable[[], None]:
        """Begin the next chunk: what the thread that owns the model has to do before it makes it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._prompt_id = pending[2]
        self.chunks_started += 1
        self.under_way = True

        def act() -> None:
            if pending is not None:
                self.stream.set_prompt(pending[0], recache=pending[1])

        return act

    def finish_chunk(self, chunk: Chunk, batch: int, began: int, ended: int) -> int:
        """Take a finished chunk: how many frames had to be dropped for it.

        Args:
            batch: sessions that were computed with it, itself included.
            began, ended: Unix time in nanoseconds.
        """
        self.span.add_chunk(chunk, self._prompt_id, batch, began, ended)
        now, length = time.monotonic(), len(chunk.frames) / self.options.fps
        made = MadeChunk(chunk, self.frames_made, self._prompt_id, ended / 1e9)
        self.frames_made += made.num_frames
        # A viewer that ran dry, or one not played in real time, starts anew from here.
        restart = self.options.pace == "max" or self._deadline < now
        self._deadline = (now if restart else self._deadline) + length
        self._free_since = now
        dropped = 0
        while len(self._buffer) >= self.options.buffer_chunks:
            dropped += self._buffer.popleft().num_frames
        self.frames_dropped += dropped
        self._buffer.append(made)
        if self.viewer is not None:
            self.viewer.wake()
        return dropped

    # The end

    def end(self, reason: EndReason) -> None:
        """End the session; its memory is freed within a chunk."""
        if self.ending is not None:
            return
        self.ending = reason
        self.span.end(reason)
        if self._expiry is not None:
            self._expiry.cancel()
        if self.viewer is not None:
            self.viewer.end(reason)
        else:
            self._buffer.clear()
        self._on_end(self, reason)
