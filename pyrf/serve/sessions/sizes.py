"""Frame sizes that a server makes; one that the backend has no graphs for is prepared beside the streams."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrf.serve.errors import ServeError

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline

logger = logging.getLogger(__name__)

MAX_PREPARED = 4
"""Sizes that are prepared for whoever asks; each takes minutes, memory and a folder on the disk."""
RETRY_S = 10.0
"""What is said to wait while a size is prepared."""


class Sizes:
    """Which sizes of a pipeline's frames are ready. Made and used on the event loop.

    A backend of exported graphs needs an export for each size. That takes minutes, and in the model's thread
    it would hold up every stream.
    """

    def __init__(self, pipe: StreamingPipeline) -> None:
        self._model = pipe.model
        self._asked: dict[tuple[int, int], str | None] = {}  # with what went wrong, if it did
        self._is_preparing = False

    def check(self, height: int, width: int) -> None:
        """Let a size pass that is ready; begin to prepare another one.

        Raises:
            ServeError: 503 while it is prepared, 422 when it cannot be or there are too many.
        """
        backend, size = self._model.backend, self._model.latent_size(height, width)
        if backend.is_ready(size):
            return
        shown = f"{height} x {width}"
        if problem := self._asked.get((height, width)):
            raise ServeError(422, "bad_size", f"frames of {shown} cannot be prepared: {problem}")
        if (height, width) not in self._asked and len(self._asked) >= MAX_PREPARED:
            sizes = ", ".join(f"{h} x {w}" for h, w in self._asked)
            message = f"frames of {shown} are not prepared, and no further size will be; take one of {sizes}"
            raise ServeError(422, "bad_size", message)
        if not self._is_preparing:
            self._asked[height, width] = None
            self._prepare(height, width)
        message = f"frames of {shown} are prepared for their first stream; try again in a while"
        raise ServeError(503, "preparing", message, RETRY_S)

    def _prepare(self, height: int, width: int) -> None:
        """Begin; the thread is none of asyncio's, which a process that ends would wait for."""
        logger.info("preparing a size", extra={"height": height, "width": width})
        self._is_preparing = True
        loop = asyncio.get_running_loop()
        backend, size = self._model.backend, self._model.latent_size(height, width)

        def work() -> None:
            problem = None
            try:
                backend.prepare(size)
            except Exception as error:
                logger.error("a size cannot be prepared", exc_info=error)
                problem = str(error).partition("\n")[0] or type(error).__name__
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._done, height, width, problem)

        threading.Thread(target=work, name="pyrf-prepare", daemon=True).start()

    def _done(self, height: int, width: int, problem: str | None) -> None:
        self._is_preparing, self._asked[height, width] = False, problem
