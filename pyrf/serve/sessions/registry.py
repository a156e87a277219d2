"""The registry of sessions: who is let in, what viewers change, and how everything ends."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pyrf.protocol import (
    AdaptersMessage,
    AdaptersReply,
    AdminSession,
    EndReason,
    PromptReply,
    ServerInfo,
    SessionRequest,
)
from pyrf.serve.errors import ServeError
from pyrf.serve.keys.key import Key
from pyrf.serve.keys.ring import Keyring
from pyrf.serve.metrics import Metrics
from pyrf.serve.models import ServedModel, ServedModels
from pyrf.serve.sessions.accounts import Accounts
from pyrf.serve.sessions.admission import Admission
from pyrf.serve.sessions.chunks import SessionOptions
from pyrf.serve.sessions.farewell import end_all
from pyrf.serve.sessions.gate import Gate, Given
from pyrf.serve.sessions.images import decode_image
from pyrf.serve.sessions.live import LiveSessions, no_session
from pyrf.serve.sessions.quotas import BUSY_RETRY_S
from pyrf.serve.sessions.rates import RateLimit
from pyrf.serve.sessions.scheduler import Scheduler
from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.sources import ViewersSources
from pyrf.serve.sessions.told import admin_session, server_info
from pyrf.serve.settings import ServeSettings
from pyrf.streaming.change import Change, schedule
from pyrf.streaming.mix import ClipPrompt, as_json, texts_of
from pyrf.streaming.notices import told_elsewhere
from pyrf.video.watermark import Watermark

if TYPE_CHECKING:
    from pyrf.endpoints.moderate import Moderate
    from pyrf.streaming.chunk import Chunk
    from pyrf.streaming.stream import Stream

logger = logging.getLogger(__name__)


class SessionRegistry:
    """Owns the sessions of a server, whatever their models. Made and used on the event loop.

    Args:
        models: that sessions choose from.
        settings: limits and policies; they hold for the sessions of all models together.
        metrics: where what happens is counted.
        moderate: in place of the API of the settings.
        keyring: whose sessions are counted by their keys.

    Attributes:
        models: as given.
        live: its sessions.
        admission: who looks at requests first.
        sources: what viewers send of their own video.
    """

    def __init__(
        self,
        models: ServedModels,
        settings: ServeSettings,
        metrics: Metrics,
        moderate: Moderate | None,
        keyring: Keyring,
    ) -> None:
        self.models, self.settings, self._metrics = models, settings, metrics
        self.live = LiveSessions(settings.max_session_s)
        metrics.begin(models.names, self.live.count)
        metrics.count_keys = lambda: self._accounts.figures(self.live)
        self._keyring, self._accounts = keyring, Accounts(keyring)
        self.admission = Admission(settings, self._accounts)
        self._freeing: set[asyncio.Task[None]] = set()
        self._controls = RateLimit(settings.controls_per_second, 10 * settings.controls_per_second)
        self.sources = ViewersSources(settings)
        self._gate = Gate(settings, moderate)
        self._scheduler = Scheduler(
            metrics,
            settings.max_batch,
            settings.lead_s,
            None if settings.watermark is None else Watermark(settings.watermark),
        )

    async def warm_up(self) -> None:
        """Make chunks of each model for nobody."""
        for model in self.models:
            await self._scheduler.run(model.warm_up)

    def model_of(self, session: Session) -> ServedModel:
        """What a session shows."""
        return self.models.find(session.model)

    async def create(
        self,
        request: SessionRequest,
        address: str,
        *,
        key: Key | None = None,
        is_clip: bool = False,
        timeline: Mapping[int, Change] | None = None,
        later: Sequence[str] = (),
    ) -> tuple[Session, Given]:
        """Admit a session, and say what became of its prompt.

        Args:
            key: that was shown, if one is needed.
            timeline: its later prompts, which are known to be good.
            later: their texts, which are moderated too.

        Raises:
            ServeError: 422 for an unknown model, or what it cannot make; 429 for an address or a key that
                asks too often or holds its share already; 503 when the server is full or takes no sessions.
        """
        model, admission = self.models.find(request.model), self.admission
        model.check_prompt(request.prompt)
        options = admission.take(request, model, address, self.live, key=key, is_clip=is_clip)
        given = await self._gate.take(request.prompt, model, later)
        prompt = model.check_prompt(given.prompt)
        admission.check_again(options, self.live)
        image = None
        if request.image is not None:  # for whoever is admitted alone: it takes a while
            size = {"height": options.height, "width": options.width}
            image = await asyncio.to_thread(
                decode_image, request.image, self.settings, **size, fit=request.fit
            )
            admission.check_again(options, self.live)
        with told_elsewhere():
            stream = model.pipe.stream(
                prompt,
                request.seed,
                height=options.height,
                width=options.width,
                image=image,
                start=request.start,
                timeline=timeline,
            )
        return self._begin(model, stream, prompt, options), given

    def _begin(
        self, model: ServedModel, stream: Stream, prompt: ClipPrompt, options: SessionOptions
    ) -> Session:
        session = Session(
            self.settings.id_prefix + secrets.token_hex(8),
            secrets.token_urlsafe(32),
            stream,
            options,
            changed=self._scheduler.wake,
            on_end=self._on_end,
            starting=model.adapters.start_chunk,
            made=self._on_made,
        )
        model.adapters.begin_session()
        self._accounts.begin(options.key)
        self.live.add(session)
        self._scheduler.add(session)
        self._metrics.started.labels(model.name).inc()
        told = {"model": model.name, "pace": options.pace, "address": options.address}
        self._log("session created", session, prompt, **told)
        return session

    def _on_made(self, session: Session, chunk: Chunk) -> None:
        self._gate.watch(session, chunk)
        if self._accounts.count(session.options.key, len(chunk.frames) / session.options.fps):
            session.end("quota")

    def check_watchers(self, session: Session) -> None:
        """Refuse one more watcher.

        Raises:
            ServeError: 429 when as many watch it as may.
        """
        if len(session.watchers) >= self.settings.max_watchers:
            message = f"a session may have {self.settings.max_watchers} watchers at a time; try later"
            raise ServeError(429, "quota", message, BUSY_RETRY_S)

    async def set_prompt(
        self, session: Session, prompt: str | dict[str, float], recache: bool, over: float
    ) -> PromptReply:
        """Change a session's prompt.

        Raises:
            ServeError: as `check_controls` does, and 422 for a bad prompt, or one that is refused.
        """
        self.check_controls(session)
        model = self.model_of(session)
        model.check_prompt(prompt)
        given = await self._gate.take(prompt, model)
        if session.ending is not None:
            raise no_session()
        mix = model.check_prompt(given.prompt)
        prompt_id, chunk = session.set_prompt(mix, recache, over)
        self._log("prompt changed", session, mix, prompt_id=prompt_id, chunk=chunk)
        planned = schedule(model.pipe.model.times, chunk, over)
        told = [*given.warnings, *model.notices(given.prompt)]
        return PromptReply(prompt_id=prompt_id, warnings=told, expanded=given.expanded, **asdict(planned))

    def set_adapters(self, session: Session, strengths: Mapping[str, float]) -> AdaptersReply:
        """Change strengths of adapters, for all sessions of the model; their viewers are told.

        Raises:
            ServeError: as `check_controls` and `ServedAdapters.change` do.
        """
        self.check_controls(session)
        adapters = self.model_of(session).adapters
        adapters.change(strengths)
        now = adapters.strengths
        for other in self.live:
            if other is not session and other.model == session.model:
                other.announce(AdaptersMessage(strengths=now, chunk=other.chunks_started))
        self._log("adapters changed", session, strengths=now, chunk=session.chunks_started)
        return AdaptersReply(strengths=now, chunk=session.chunks_started)

    def set_source(self, session: Session, strength: float | None, follow_motion: bool = False) -> int:
        """Restyle what the session's viewer sends, or change how far; None: show the prompt alone again.

        Args:
            follow_motion: lower the strength where it moves.

        Returns:
            The chunk that shows it first.

        Raises:
            ServeError: as `check_controls` does.
        """
        self.check_controls(session)
        if strength is not None:
            self.sources.begin(session, self.model_of(session).pipe.model.frames_in_chunk)
        return session.set_strength(strength, follow_motion)

    def check_controls(self, session: Session) -> None:
        """Count a control message.

        Raises:
            ServeError: 404 when the session has ended, 429 when there are too many.
        """
        if session.ending is not None:  # whoever still holds it: a connection that is about to be closed
            raise no_session()
        if wait := self._controls.wait_for(session.id):
            message = f"at most {self.settings.controls_per_second:g} controls a second; wait {wait:.1f} s"
            raise ServeError(429, "rate_limited", message, wait)

    def info(self, model: str | None = None) -> ServerInfo:
        """What is served.

        Args:
            model: its name; None: the default one.

        Raises:
            ServeError: 422 when there is no such model.
        """
        served, names = self.models.find(model), self.models.names
        return server_info(served, self.settings, sessions=len(self.live), models=names)

    def overview(self) -> list[AdminSession]:
        """All live sessions, the oldest first."""
        return [admin_session(session) for session in self.live]

    def end_revoked(self) -> None:
        """End the sessions of keys that are no more."""
        self._accounts.forget_revoked()
        for session in self.live:
            key = session.options.key
            if key is not None and self._keyring.now(key) is None:
                session.end("revoked")

    def _on_end(self, session: Session, reason: EndReason) -> None:
        self.live.remove(session)
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
        if self.admission.ending:
            return
        self.admission.ending = True
        logger.info("draining", extra={"sessions": len(self.live)})
        stopping = asyncio.ensure_future(self._scheduler.stop())
        await asyncio.wait((stopping,), timeout=None if seconds == math.inf else seconds / 2)
        await end_all(list(self.live), seconds / 2)

    async def close(self) -> None:
        """Drain, and free everything."""
        await self.drain()
        await asyncio.gather(*self._freeing, return_exceptions=True)
        self.sources.close()
        self._gate.close()

    def _log(self, event: str, session: Session, prompt: ClipPrompt | None = None, **extra: object) -> None:
        if prompt is not None:
            extra["prompt_chars"] = sum(map(len, texts_of(prompt)))
            if self.settings.log_prompts:
                extra["prompt"] = as_json(prompt)
        if session.options.key is not None:
            extra["key"] = session.options.key.name
        logger.info(event, extra={"session": session.id, **extra})
