"""The way of a prompt to a stream: moderation may refuse it, and a language model may write it out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pyrf.endpoints.moderate import HttpModerator, Moderate
from pyrf.serve.errors import ServeError
from pyrf.serve.models import ServedModel
from pyrf.serve.settings import ServeSettings

if TYPE_CHECKING:
    from pyrf.serve.sessions.session import Session
    from pyrf.streaming.chunk import Chunk

T = TypeVar("T")
Wire = str | dict[str, float]
"""A prompt as clients send it."""

logger = logging.getLogger(__name__)

THREADS = 4
MAX_WAITING = 64
"""Calls that are under way or wait for a thread."""
RETRY_S = 5.0
NOT_EXPANDED = "the prompt could not be written out; it is shown as it is"


@dataclass(frozen=True)
class Given:
    """A prompt that may be shown.

    Attributes:
        prompt: what is shown.
        expanded: the same, where a language model has written it.
        warnings: for its viewer.
    """

    prompt: Wire
    expanded: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def told(self) -> list[str]:
        """All of it in sentences."""
        shown = [] if self.expanded is None else [f"the prompt is shown as: {self.expanded}"]
        return [*shown, *self.warnings]


class Gate:
    """Moderates and expands prompts, and moderates frames. Lives on the event loop; calls are in threads.

    Args:
        settings: which APIs there are.
        moderate: in place of an API.
    """

    def __init__(self, settings: ServeSettings, moderate: Moderate | None) -> None:
        self._moderate = moderate
        if moderate is None and settings.moderate is not None:
            self._moderate = HttpModerator(settings.moderate, timeout_s=settings.endpoint_timeout_s)
        self._every = settings.moderate_chunks
        self._threads = ThreadPoolExecutor(THREADS, "pyrf-gate")
        self._waiting = 0
        self._watching: dict[str, asyncio.Task[None]] = {}

    async def take(self, prompt: Wire, model: ServedModel, later: Sequence[str] = ()) -> Given:
        """What is shown for a prompt, which is known to be good.

        Args:
            model: that shows it.
            later: texts that are shown later, and moderated as well.

        Raises:
            ServeError: 422 when moderation refuses a text, 503 when it does not answer.
        """
        await self._judge([prompt] if isinstance(prompt, str) else [*prompt], later)
        if model.expander is None or not isinstance(prompt, str):
            return Given(prompt)
        try:
            expanded = await self._run(model.expander.expand, prompt)
            problem = expanded.problem
            if problem is None:
                model.check_prompt(expanded.text)
        except ServeError as error:
            problem = error.reply.message
        if problem is not None:
            logger.warning("prompt not expanded", extra={"problem": problem})
            return Given(prompt, warnings=(NOT_EXPANDED,))
        await self._judge([expanded.text])
        return Given(expanded.text, expanded.text)

    async def _judge(self, *texts: Sequence[str]) -> None:
        if self._moderate is None:
            return
        for text in dict.fromkeys(text for some in texts for text in some):
            try:
                reason = await self._run(self._moderate, text)
            except ServeError:
                raise
            except Exception as error:  # of an endpoint, or of the hook of whoever runs the server
                logger.error("no verdict on a prompt", exc_info=error)
                raise ServeError(
                    503, "no_verdict", "the prompt could not be moderated; try again later", RETRY_S
                ) from None
            if reason is not None:
                message = f"the prompt is refused: {reason:.300}; choose another"
                raise ServeError(422, "refused", message)

    def watch(self, session: Session, chunk: Chunk) -> None:
        """Moderate the first frame of some chunks; a refused one ends the session."""
        if self._moderate is None or not self._every or chunk.index % self._every:
            return
        if session.id not in self._watching:
            task = asyncio.create_task(self._watch(session, chunk))
            self._watching[session.id] = task
            task.add_done_callback(lambda _: self._watching.pop(session.id))

    async def _watch(self, session: Session, chunk: Chunk) -> None:
        assert self._moderate is not None
        try:
            reason = await self._run(self._moderate, chunk.frames[0])
        except Exception as error:
            logger.error("no verdict on a frame", exc_info=error, extra={"session": session.id})
            return
        if reason is not None:
            logger.warning("frame refused", extra={"session": session.id, "chunk": chunk.index})
            session.end("refused")

    async def _run(self, function: Callable[..., T], subject: object) -> T:
        """Call in a thread.

        Raises:
            ServeError: 503 when too many calls wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise ServeError(503, "busy", "too many prompts wait; try again", RETRY_S)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, subject)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let what is under way end by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
