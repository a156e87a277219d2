"""A session: a stream, the chunks that wait for its viewer, and the state between them.

Everything here belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from pyrf.protocol import EndReason, Message, SessionInfo, State
from pyrf.serve.sessions.chunks import MadeChunk, SessionOptions
from pyrf.serve.sessions.restyling import Restyling
from pyrf.serve.sessions.tracing import SessionSpan
from pyrf.serve.sessions.viewer import Viewer
from pyrf.serve.sessions.watchers import Watchers
from pyrf.streaming.notices import told_elsewhere

if TYPE_CHECKING:
    from pyrf.streaming.chunk import Chunk
    from pyrf.streaming.mix import ClipPrompt
    from pyrf.streaming.stream import Stream

FIRST_GRACE_S = 10.0
"""Seconds that a new session waits for its first viewer at least, whatever its grace period."""


class Session:
    """A stream that viewers attach to, one at a time, and that others watch.

    A session without a viewer makes its first chunk, so that it can be shown at once, and then waits.
    Finished chunks wait for the viewer in a short buffer. When that is full a real-time session drops the
    oldest chunk, any other waits for room.

    Args:
        starting: called before each of its chunks is started.
        made: called with each chunk that its viewers will see.
        changed: called whenever the session may have become ready for a chunk.
        on_end: called once, when the session ends.

    Attributes:
        created: monotonic time in seconds.
        deadline: when the viewer will have played all that was made, on the monotonic clock.
        chunks_started: also the index of the next chunk.
        newest_prompt_id: of the prompt that was set last.
        restyling: of what its viewer sends, if anything.
        ending: why the session has ended, once it has.
        watchers: those who watch beside the viewer.
        watch_key: what opens that.
        unwatched: set as long as there is neither viewer nor watcher.
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
        starting: Callable[[], None] = lambda: None,
        made: Callable[[Session, Chunk], None] = lambda *_: None,
    ) -> None:
        self.id, self.token, self.stream, self.options = id, token, stream, options
        self.created = self._free_since = time.monotonic()
        self.deadline = 0.0  # first of all: someone looks at an empty screen
        self.chunks_started = 0
        self.frames_made = self.frames_dropped = 0
        self.newest_prompt_id = self._prompt_id = 0
        self.ending: EndReason | None = None
        self.viewer: Viewer | None = None
        self.watchers, self.watch_key = Watchers(options.buffer_chunks), secrets.token_urlsafe(32)
        self.unwatched = asyncio.Event()
        self.unwatched.set()
        self._span = SessionSpan(id, options)
        self._changed, self._on_end, self._starting, self._made = changed, on_end, starting, made
        # The newest prompt, how to change to it and its id, until a chunk is started. The stream gets it only
        # then: the reply named that chunk, and the model's thread may still be at the one before.
        self._pending: tuple[ClipPrompt, bool, float, int] | None = None
        self.restyling = Restyling()
        self._paused = False
        self._under_way = False
        self._buffer: deque[MadeChunk] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._pause_end: asyncio.TimerHandle | None = None
        self._await_viewer(max(options.grace_s, FIRST_GRACE_S))

    @property
    def state(self) -> State:
        if self.ending is not None:
            return "ended"
        if self.viewers == 0:
            return "detached"
        return "paused" if self._paused else "running"

    @property
    def viewers(self) -> int:
        """Who takes its frames now, watchers included."""
        return (self.viewer is not None) + len(self.watchers)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.options.height, self.options.width

    @property
    def address(self) -> str:
        """Of whoever asked for it."""
        return self.options.address

    @property
    def model(self) -> str:
        """The name of what it shows."""
        return self.options.model

    @property
    def kin(self) -> Hashable:
        """Sessions of one kin may be computed in one call."""
        return (self.model, *self.size) if self.options.together else self.id

    def info(self) -> SessionInfo:
        """Where the session stands."""
        o = self.options
        return SessionInfo(
            id=self.id,
            model=o.model,
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
            strength=self.restyling.strength,
        )

    def set_prompt(self, prompt: ClipPrompt, recache: bool, over: float = 0.0) -> tuple[int, int]:
        """Switch to a prompt that is known to be good: its id, and the chunk that shows it first."""
        self.newest_prompt_id += 1
        self._pending = prompt, recache, over, self.newest_prompt_id
        return self.newest_prompt_id, self.chunks_started

    def set_strength(self, strength: float | None, follow_motion: bool = False) -> int:
        """Restyle the camera's pictures with a strength, None: let the camera go. The chunk that shows it."""
        self.restyling.ask(strength, follow_motion)
        return self.chunks_started

    def pause(self) -> None:
        """Make no further chunk; what is finished is still sent."""
        self._paused = True
        if self._pause_end is None and self.ending is None and self.options.pause_s < math.inf:
            loop = asyncio.get_running_loop()
            self._pause_end = loop.call_later(self.options.pause_s, self.end, "idle")

    def resume(self) -> None:
        """Go on after a pause."""
        self._paused = False
        if self._pause_end is not None:
            self._pause_end.cancel()
            self._pause_end = None
        self._unblock()

    def announce(self, message: Message) -> None:
        """Tell the viewer, if there is one, what was done from elsewhere."""
        if self.viewer is not None:
            self.viewer.announce(message)

    def attach(self, kind: str) -> Viewer:
        """Become the session's viewer; of an ended session one that ends at once.

        A viewer is whatever takes frames: a connection that a client opened, or an output that the server
        itself opens, as a clip is. Outputs to elsewhere (RTMP, WHIP) begin here too: a route attaches, sends
        on what `Viewer.next` gives until that is None, and detaches. A session has one viewer, of whatever
        kind: the newest takes over.

        Args:
            kind: how frames leave the server, for the log.
        """
        if self.viewer is not None:
            self.viewer.end("replaced")
            self.set_strength(None)
        self._be_seen()
        self.viewer = Viewer(kind, self.take)
        if self.ending is not None:
            self.viewer.end(self.ending)
        waiting = sum(made.num_frames for made in self._buffer)
        self.deadline = max(self.deadline, time.monotonic() + waiting / self.options.fps)
        self._unblock()
        return self.viewer

    def detach(self, viewer: Viewer) -> None:
        """The viewer is gone: keep the session for its grace period, unless another took it over."""
        if viewer is self.viewer:
            self.viewer = None
            self.set_strength(None)  # what it sent is not to be seen by the next one
            if self.ending is not None:
                self._buffer.clear()
            self._be_seen_less()

    def watch(self, kind: str) -> Viewer:
        """Watch beside the viewer, who is not hindered; of an ended session a watcher that ends at once.

        A session with watchers goes on without a viewer, in real time.

        Args:
            kind: how frames leave the server, for the log.
        """
        self._be_seen()
        watcher = self.watchers.add(kind)
        if self.ending is not None:
            watcher.end(self.ending)
        self.deadline = max(self.deadline, time.monotonic())
        self._unblock()
        return watcher

    def unwatch(self, watcher: Viewer) -> None:
        """A watcher is gone."""
        if self.watchers.remove(watcher):
            self._be_seen_less()

    def _be_seen(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self.unwatched.clear()

    def _be_seen_less(self) -> None:
        """One has gone: without anyone the session stays for its grace period."""
        if self.viewers:
            return
        self.unwatched.set()
        if self.ending is None:
            self._await_viewer(self.options.grace_s)

    def take(self) -> MadeChunk | None:
        """The oldest chunk that waits."""
        if not self._buffer:
            return None
        made = self._buffer.popleft()
        self._unblock()
        return made

    def ready_at(self) -> float | None:
        """From when on the next chunk may be made; None when something else has to happen first."""
        if self.ending is not None or self._under_way:
            return None
        if self.chunks_started == 0:
            return self.created
        if self.viewers == 0 or self._paused:
            return None
        if self.options.pace == "max" and self.viewer is not None:
            return None if len(self._buffer) >= self.options.buffer_chunks else self._free_since
        return max(self._free_since, self.deadline - self.options.lead_s)

    def start_chunk(self) -> None:
        """Begin the next chunk: a prompt that waits acts from here on."""
        self._starting()
        if self._pending is not None:
            prompt, recache, over, self._prompt_id = self._pending
            self._pending = None
            with told_elsewhere():
                self.stream.set_prompt(prompt, recache=recache, over=over)
        self.restyling.act(self.stream)
        self.chunks_started += 1
        self._under_way = True

    def finish_chunk(self, chunk: Chunk | None, batch: int, began: int, ended: int) -> int | None:
        """Take the chunk that was started.

        Args:
            chunk: None when the stream was closed meanwhile.
            batch: sessions that were computed with it, itself included.
            began, ended: Unix time in nanoseconds.

        Returns:
            Frames that had to be dropped for it; None when it comes too late, as the session has ended.
        """
        self._under_way = False
        if chunk is None or self.ending is not None:
            return None
        self._span.add_chunk(chunk, self._prompt_id, batch, began, ended)
        now, length = time.monotonic(), len(chunk.frames) / self.options.fps
        made = MadeChunk(chunk, self.frames_made, self._prompt_id, ended / 1e9)
        self.frames_made += made.num_frames
        # A viewer that ran dry, or one not played in real time, starts anew from here.
        restart = self.options.pace == "max" or self.deadline < now
        self.deadline = (now if restart else self.deadline) + length
        self._free_since = now
        dropped = 0
        while len(self._buffer) >= self.options.buffer_chunks:
            oldest = self._buffer.popleft()
            dropped += 0 if self.viewer is None and len(self.watchers) else oldest.num_frames
        self.frames_dropped += dropped
        self._buffer.append(made)
        self.watchers.deliver(made)
        if self.viewer is not None:
            self.viewer.wake()
        self._made(self, chunk)
        return dropped

    def fail_chunk(self, reason: EndReason = "failed") -> None:
        """The chunk that was started cannot be made."""
        self._under_way = False
        self.end(reason)

    def end(self, reason: EndReason) -> None:
        """End the session; its memory is freed within a chunk."""
        if self.ending is not None:
            return
        self.ending = reason
        self._span.end(reason)
        for timer in (self._expiry, self._pause_end):
            if timer is not None:
                timer.cancel()
        self.watchers.end(reason)
        if self.viewer is not None:
            self.viewer.end(reason)
        else:
            self._buffer.clear()
        self._on_end(self, reason)

    def _await_viewer(self, seconds: float) -> None:
        self._expiry = asyncio.get_running_loop().call_later(seconds, self.end, "expired")

    def _unblock(self) -> None:
        """What kept the next chunk from being made may be gone."""
        self._free_since = time.monotonic()
        self._changed()
