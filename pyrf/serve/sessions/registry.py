"""All sessions of a server: who is let in, who is found again, and how everything ends."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from pyrf.protocol import (
    AdaptersMessage,
    AdaptersReply,
    EndReason,
    ImageStart,
    PromptReply,
    ServerInfo,
    SessionRequest,
    State,
)
from pyrf.serve.errors import ServeError
from pyrf.serve.metrics import Metrics
from pyrf.serve.sessions.adapters import ServedAdapters
from pyrf.serve.sessions.chunks import SessionOptions
from pyrf.serve.sessions.images import decode_image
from pyrf.serve.sessions.quotas import over_quota
from pyrf.serve.sessions.rates import RateLimit
from pyrf.serve.sessions.scheduler import Scheduler
from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.sizes import Sizes
from pyrf.serve.sessions.sources import ViewersSources
from pyrf.serve.sessions.told import server_info
from pyrf.serve.sessions.viewer import FAREWELL_S
from pyrf.serve.settings import ServeSettings
from pyrf.streaming.change import Change, schedule
from pyrf.streaming.lockstep import can_join
from pyrf.streaming.mix import ClipPrompt, as_json, as_mix, texts_of
from pyrf.streaming.notices import told_elsewhere
from pyrf.streaming.start import check_start

if TYPE_CHECKING:
    from pyrf.config import StartKind
    from pyrf.pipeline import StreamingPipeline
    from pyrf.streaming.stream import Stream

logger = logging.getLogger(__name__)

WARM_UP_CHUNKS = 2
"""Chunks made before the first viewer comes."""
BUSY_RETRY_S = 5.0
"""What a full server says to wait; nobody knows when a session will end."""


class SessionRegistry:
    """Owns the sessions of one pipeline. Made and used on the event loop.

    Args:
        pipe: a loaded pipeline.
        model: its name, for people.
        settings: limits and policies.
        metrics: where what happens is counted.

    Attributes:
        sources: what viewers send of their own video.
    """

    def __init__(
        self, pipe: StreamingPipeline, model: str, settings: ServeSettings, metrics: Metrics
    ) -> None:
        self.pipe, self.model, self.settings, self._metrics = pipe, model, settings, metrics
        metrics.count_states = self._count_states
        self._sizes = Sizes(pipe)
        self._adapters = ServedAdapters(pipe.model.adapters, settings)
        self.draining = False
        self._sessions: dict[str, Session] = {}
        self._ages: dict[str, asyncio.TimerHandle] = {}
        self._freeing: set[asyncio.Task[None]] = set()
        self._creates = RateLimit(settings.creates_per_minute / 60, settings.creates_per_minute)
        self._controls = RateLimit(settings.controls_per_second, 10 * settings.controls_per_second)
        self.sources = ViewersSources(pipe.model.frames_in_chunk, settings)
        self._scheduler = Scheduler(
            metrics, settings.max_batch if can_join(pipe.model) else 1, settings.lead_s
        )

    async def warm_up(self) -> None:
        """Make chunks for nobody: the first of a process is slow, and no viewer should wait for that."""

        def job() -> None:
            with told_elsewhere(), self.pipe.stream("warm up") as stream:
                for _ in range(WARM_UP_CHUNKS):
                    next(stream)

        await self._scheduler.run(job)

    async def create(
        self,
        request: SessionRequest,
        address: str,
        *,
        is_clip: bool = False,
        timeline: Mapping[int, Change] | None = None,
    ) -> Session:
        """Admit a session; `timeline` has its later prompts, which are known to be good.

        Raises:
            ServeError: 422 for what the model cannot make, 429 for an address that asks too often or holds
                its share already, 503 when the server is full or shuts down.
        """
        prompt = self.check_prompt(request.prompt)
        options = self._admit(request, address, is_clip=is_clip)
        image = None
        if request.image is not None:  # for whoever is admitted alone: it takes a while
            size = {"height": options.height, "width": options.width}
            image = await asyncio.to_thread(
                decode_image, request.image, self.settings, **size, fit=request.fit
            )
            self._check_room()  # others may have come meanwhile
        with told_elsewhere():
            stream = self.pipe.stream(
                prompt,
                request.seed,
                height=options.height,
                width=options.width,
                image=image,
                start=request.start,
                timeline=timeline,
            )
        return self._begin(stream, prompt, options)

    def _admit(self, request: SessionRequest, address: str, *, is_clip: bool) -> SessionOptions:
        """What a session will be, where there is room for it."""
        height, width = self._check_size(request.height, request.width)
        self.start_of(request)
        self._check_room()
        self._sizes.check(height, width)
        if problem := over_quota(self._sessions.values(), address, is_clip, self.settings):
            raise ServeError(429, "quota", problem, BUSY_RETRY_S)
        if wait := self._creates.wait_for(address):
            message = f"at most {self.settings.creates_per_minute:g} sessions a minute; wait {wait:.1f} s"
            raise ServeError(429, "rate_limited", message, wait)
        grace_s = self.settings.grace_s
        if request.grace_s is not None:
            grace_s = min(grace_s, request.grace_s)
        return SessionOptions(
            seed=request.seed,
            height=height,
            width=width,
            fps=self.pipe.fps,
            pace=request.pace,
            grace_s=grace_s,
            lead_s=self.settings.lead_s,
            buffer_chunks=self.settings.buffer_chunks,
            pause_s=self.settings.pause_s,
            address=address,
            is_clip=is_clip,
        )

    def start_of(self, request: ImageStart) -> StartKind | None:
        """How a request's stream starts; None where it does from noise.

        Raises:
            ServeError: 422 when the model cannot start so.
        """
        try:
            return check_start(self.pipe.model, request.start, image=request.image is not None, video=False)
        except ValueError as error:
            raise ServeError(422, "bad_image", str(error)) from None

    def _check_room(self) -> None:
        if self.draining:
            raise ServeError(503, "shutting_down", "the server shuts down; try again", BUSY_RETRY_S)
        if len(self._sessions) >= self.settings.max_sessions:
            message = f"all {self.settings.max_sessions} sessions are taken; try again later"
            raise ServeError(503, "full", message, BUSY_RETRY_S)

    def _begin(self, stream: Stream, prompt: ClipPrompt, options: SessionOptions) -> Session:
        session = Session(
            self.settings.id_prefix + secrets.token_hex(8),
            secrets.token_urlsafe(32),
            stream,
            options,
            changed=self._scheduler.wake,
            on_end=self._on_end,
            starting=self._adapters.start_chunk,
        )
        self._adapters.begin_session()
        loop = asyncio.get_running_loop()
        self._sessions[session.id] = session
        self._ages[session.id] = loop.call_later(self.settings.max_session_s, session.end, "max_length")
        self._scheduler.add(session)
        self._metrics.started.inc()
        self._log("session created", session, prompt, pace=options.pace, address=options.address)
        return session

    def _check_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        try:
            height, width = self.pipe.check_size(height, width)
        except ValueError as error:
            raise ServeError(422, "bad_size", str(error)) from None
        if height * width > self.max_pixels:
            message = f"a frame may have {self.max_pixels} pixels, got {height} x {width}; ask for fewer"
            raise ServeError(422, "bad_size", message)
        return height, width

    @property
    def max_pixels(self) -> int:
        return self.settings.max_pixels or self.pipe.height * self.pipe.width

    def check_prompt(self, prompt: str | dict[str, float]) -> ClipPrompt:
        """A prompt as streams take it, all of whose texts the model would read whole.

        Raises:
            ServeError: 422.
        """
        chars = sum(map(len, [prompt] if isinstance(prompt, str) else prompt))
        if chars > self.settings.max_prompt_chars:
            message = f"a prompt may have {self.settings.max_prompt_chars} characters, got {chars}"
            raise ServeError(422, "bad_prompt", f"{message}; shorten it")
        try:
            mix = as_mix(prompt)
            for text in texts_of(mix):
                self.pipe.check_prompt(text)
        except ValueError as error:
            raise ServeError(422, "bad_prompt", str(error)) from None
        return mix

    def notices(self, prompt: str | dict[str, float], size: tuple[int, int] | None = None) -> list[str]:
        """What a viewer should be told of a prompt that is good, and of a size of frames."""
        height, width = size or (None, None)
        return self.pipe.model.notices(*texts_of(as_mix(prompt)), height=height, width=width)

    def find(self, id: str, token: str | None) -> Session:
        """The live session of this id, for who holds its token.

        Raises:
            ServeError: 404, whether it is the session or the token that is wrong.
        """
        session = self._sessions.get(id)
        expected = "" if session is None else session.token
        right = secrets.compare_digest((token or "").encode(), expected.encode())
        if session is None or not right:
            raise _no_session()
        return session

    def knows(self, id: str) -> bool:
        """Whether there is a live session of this id."""
        return id in self._sessions

    def set_prompt(
        self, session: Session, prompt: str | dict[str, float], recache: bool, over: float
    ) -> PromptReply:
        """Change a session's prompt.

        Raises:
            ServeError: as `check_controls` does, and 422 for a bad prompt.
        """
        self.check_controls(session)
        mix = self.check_prompt(prompt)
        prompt_id, chunk = session.set_prompt(mix, recache, over)
        self._log("prompt changed", session, mix, prompt_id=prompt_id, chunk=chunk)
        planned = schedule(self.pipe.model.times, chunk, over)
        return PromptReply(prompt_id=prompt_id, warnings=self.notices(prompt), **asdict(planned))

    def set_adapters(self, session: Session, strengths: Mapping[str, float]) -> AdaptersReply:
        """Change strengths of adapters, for all sessions; their viewers are told.

        Raises:
            ServeError: as `check_controls` and `ServedAdapters.change` do.
        """
        self.check_controls(session)
        self._adapters.change(strengths)
        now = self._adapters.strengths
        for other in self._sessions.values():
            if other is not session:
                other.announce(AdaptersMessage(strengths=now, chunk=other.chunks_started))
        self._log("adapters changed", session, strengths=now, chunk=session.chunks_started)
        return AdaptersReply(strengths=now, chunk=session.chunks_started)

    def set_source(self, session: Session, strength: float | None) -> int:
        """Restyle what the session's viewer sends, or change how far; None: show the prompt alone again.

        Returns:
            The chunk that shows it first.

        Raises:
            ServeError: as `check_controls` does.
        """
        self.check_controls(session)
        if strength is not None:
            self.sources.begin(session)
        return session.set_strength(strength)

    def check_controls(self, session: Session) -> None:
        """Count a control message.

        Raises:
            ServeError: 404 when the session has ended, 429 when there are too many.
        """
        if session.ending is not None:  # whoever still holds it: a connection that is about to be closed
            raise _no_session()
        if wait := self._controls.wait_for(session.id):
            message = f"at most {self.settings.controls_per_second:g} controls a second; wait {wait:.1f} s"
            raise ServeError(429, "rate_limited", message, wait)

    def _count_states(self) -> dict[State, int]:
        counts = Counter(session.state for session in self._sessions.values())
        return {state: counts[state] for state in ("running", "paused", "detached")}

    def info(self) -> ServerInfo:
        return server_info(
            self.pipe, self.model, self.settings, self._adapters, len(self._sessions), self.max_pixels
        )

    def _on_end(self, session: Session, reason: EndReason) -> None:
        del self._sessions[session.id]
        self._ages.pop(session.id).cancel()
        self._scheduler.remove(session)
        # Closing waits for a network call under way, so not here.
        freeing = asyncio.create_task(asyncio.to_thread(session.stream.close))
        self._freeing.add(freeing)
        freeing.add_done_callback(self._freeing.discard)
        self._metrics.ended.labels(reason).inc()
        self._log(
            "session ended",
            session,
            reason=reason,
            frames=session.frames_made,
            dropped=session.frames_dropped,
            seconds=round(time.monotonic() - session.created, 3),
        )

    async def drain(self, seconds: float = math.inf) -> None:
        """Refuse newcomers, finish the chunk under way, send what is left, and tell every viewer.

        Args:
            seconds: for all of it; a chunk that takes longer than half of them is given up.
        """
        if self.draining:
            return
        self.draining = True
        logger.info("draining", extra={"sessions": len(self._sessions)})
        stopping = asyncio.ensure_future(self._scheduler.stop())
        await asyncio.wait((stopping,), timeout=None if seconds == math.inf else seconds / 2)
        sessions = list(self._sessions.values())
        for session in sessions:
            session.end("shutdown")
        farewells = [asyncio.create_task(session.unwatched.wait()) for session in sessions]
        if farewells:
            await asyncio.wait(farewells, timeout=min(FAREWELL_S, seconds / 2))
        for farewell in farewells:
            farewell.cancel()

    async def close(self) -> None:
        """Drain, and free everything."""
        await self.drain()
        await asyncio.gather(*self._freeing, return_exceptions=True)
        self.sources.close()

    def _log(self, event: str, session: Session, prompt: ClipPrompt | None = None, **extra: object) -> None:
        if prompt is not None:
            extra["prompt_chars"] = sum(map(len, texts_of(prompt)))
            if self.settings.log_prompts:
                extra["prompt"] = as_json(prompt)
        logger.info(event, extra={"session": session.id, **extra})


def _no_session() -> ServeError:
    return ServeError(404, "no_session", "there is no such session, or the token is not its own")
