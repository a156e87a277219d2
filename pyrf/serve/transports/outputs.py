"""Sends a running session on to where the operator allows it: RTMP, SRT, UDP, and files of one folder."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyrf.protocol import OutputInfo, OutputState
from pyrf.serve.errors import ServeError
from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.sessions.quotas import BUSY_RETRY_S
from pyrf.serve.sessions.session import Session
from pyrf.serve.settings import ServeSettings
from pyrf.serve.targets import find_target, parse_allowed
from pyrf.video.files import open_writer
from pyrf.video.network import check_receiver, shown
from pyrf.video.writer import Frames

logger = logging.getLogger(__name__)

KIND = "output"
"""Of the watchers that outputs are."""
KEPT = 8
"""Outputs of a session that are still listed after their end."""
MAX_FILES = 1000
"""Of the folder of outputs."""
FAREWELL_S = 5.0
"""Seconds that outputs have at the end of the server."""


class Output:
    """A session on its way to one target, by a thread of its own, until the session or the output ends.

    A target that is slow loses chunks, and holds nobody up.

    Args:
        session: to be watched, from now on.
        target: an address, or a file that is not there yet.
        settings: how large files may be.

    Attributes:
        opened: done once the target takes video, or cannot.
    """

    def __init__(self, session: Session, target: str | Path, settings: ServeSettings) -> None:
        self.id = secrets.token_hex(8)
        self._session, self._target, self._settings = session, target, settings
        self._shown = shown(target) if isinstance(target, str) else target.name
        self.state: OutputState = "opening"
        self._frames = 0
        self._message: str | None = None
        self._loop = asyncio.get_running_loop()
        self._watcher = session.watch(KIND)
        self.opened = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        return self.state in ("ended", "failed")

    def info(self) -> OutputInfo:
        """Where it stands."""
        return OutputInfo(
            id=self.id, target=self._shown, state=self.state, frames=self._frames, message=self._message
        )

    def stop(self) -> None:
        """Send no more; what was sent is finished."""
        if not self.is_over:
            self.state = "closing"
        self._watcher.end("closed")
        self._session.unwatch(self._watcher)

    async def _run(self) -> None:
        told = {"session": self._session.id, "output": self.id, "target": self._shown}
        logger.info("output begun", extra=told)
        executor = ThreadPoolExecutor(1, thread_name_prefix="pyrf-output")
        try:
            await self._loop.run_in_executor(executor, self._send)
            self.state = "ended"
        except (ValueError, OSError) as error:
            self.state, self._message = "failed", str(error)
        except Exception as error:
            self.state, self._message = "failed", "the server failed; its log says why"
            logger.error("output failed", exc_info=error, extra=told)
        finally:
            executor.shutdown(wait=False)
            self._session.unwatch(self._watcher)
            self.opened.set()
            logger.info("output ended", extra={**told, "state": self.state, "frames": self._frames})

    def _send(self) -> None:
        """All of it, in the thread."""
        if isinstance(self._target, str):
            check_receiver(self._target)
        else:
            self._check_folder(self._target)
        with open_writer(self._target, self._session.options.fps, keep_partial=True) as sink:
            self._loop.call_soon_threadsafe(self._tell_opened)
            while (frames := self._next()) is not None:
                sink.write(frames)
                self._frames = sink.num_frames
                if isinstance(self._target, Path) and (problem := self._full(self._target.parent)):
                    self._message = problem  # what was written stays
                    return

    def _tell_opened(self) -> None:
        if self.state == "opening":
            self.state = "sending"
        self.opened.set()

    def _next(self) -> Frames | None:
        return asyncio.run_coroutine_threadsafe(self._next_frames(), self._loop).result()

    async def _next_frames(self) -> Frames | None:
        while (item := await self._watcher.next()) is not None:
            if isinstance(item, MadeChunk):
                return item.chunk.frames
        return None

    def _check_folder(self, file: Path) -> None:
        if not file.parent.is_dir():
            raise ValueError("the server's folder of outputs is not there; ask whoever runs it")
        if os.path.lexists(file):
            raise ValueError(f"there is a file {file.name} already; choose another name")
        if problem := self._full(file.parent):
            raise ValueError(problem)

    def _full(self, folder: Path) -> str | None:
        """Why the folder takes no more, if it is full."""
        sizes = []
        for entry in os.scandir(folder):
            try:
                sizes.append(entry.stat(follow_symlinks=False).st_size)
            except FileNotFoundError:  # it has just got its name
                continue
        if sum(sizes) < self._settings.max_output_bytes and len(sizes) < MAX_FILES:
            return None
        return "the server's folder of outputs is full; ask whoever runs it"


class Outputs:
    """The outputs of all sessions. Lives on the event loop.

    Args:
        settings: what is allowed, and how much.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._allowed = [parse_allowed(text) for text in settings.allow_outputs]
        self._of: dict[str, list[Output]] = {}

    async def begin(self, session: Session, target: str) -> OutputInfo:
        """Begin an output, and see whether its target takes video.

        Raises:
            ServeError: 404 when the server has none, 422 when the target is not allowed or does not answer,
                429 and 503 when there are too many.
        """
        if not self._allowed and self._settings.output_folder is None:
            raise ServeError(404, "outputs_off", "this server sends sessions nowhere; see --allow-output")
        try:
            found = find_target(target, self._allowed, self._settings.output_folder)
        except ValueError as error:
            raise ServeError(422, "bad_output", str(error)) from None
        self._make_room(session)
        output = Output(session, found, self._settings)
        own = self._of.setdefault(session.id, [])
        own.append(output)
        await output.opened.wait()
        info = output.info()
        if info.state == "failed" and not info.frames:
            own.remove(output)
            raise ServeError(422, "bad_output", info.message or "it cannot be begun")
        return info

    def _make_room(self, session: Session) -> None:
        """Forget what is over, and refuse one too many."""
        for id, outputs in list(self._of.items()):
            over = [one for one in outputs if one.is_over]
            if id != session.id and len(over) == len(outputs):
                del self._of[id]
            for one in over[:-KEPT]:
                outputs.remove(one)
        most = self._settings.max_outputs
        if sum(not one.is_over for one in self._of.get(session.id, [])) >= most:
            message = f"a session may have {most} outputs at a time; end one"
            raise ServeError(429, "quota", message, BUSY_RETRY_S)
        under_way = sum(not one.is_over for outputs in self._of.values() for one in outputs)
        if under_way >= most * self._settings.max_sessions:  # of sessions that have ended
            raise ServeError(503, "busy", "too many outputs are still being closed; try again", BUSY_RETRY_S)

    def list(self, session: Session) -> list[OutputInfo]:
        """Those of a session, the last ended ones included."""
        return [one.info() for one in self._of.get(session.id, [])]

    def stop(self, session: Session, id: str) -> None:
        """End one.

        Raises:
            ServeError: 404 when the session has no such output.
        """
        for one in self._of.get(session.id, []):
            if one.id == id:
                one.stop()
                return
        raise ServeError(404, "not_found", "the session has no such output")

    async def close(self) -> None:
        """End all of them, and give them a moment for it."""
        outputs = [one for own in self._of.values() for one in own if not one.is_over]
        for one in outputs:
            one.stop()
        if outputs:
            await asyncio.wait([one.task for one in outputs], timeout=FAREWELL_S)
