"""Frame sizes that a server makes; one that the backend has no graphs for is prepared beside the streams."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from pyrf.serve.errors import ServeError
from pyrf.serve.models import ServedModel

if TYPE_CHECKING:
    from pyrf.streaming.model import StreamModel

logger = logging.getLogger(__name__)

MAX_PREPARED = 4
"""Sizes that are prepared for whoever asks; each takes minutes, memory and a folder on the disk."""
RETRY_S = 10.0
"""What is said to wait while a size is prepared."""


class Sizes:
    """Which sizes of the models' frames are ready. Made and used on the event loop.

    A backend of exported graphs needs an export for each size. That takes minutes, and in the model's thread
    it would hold up every stream.
    """

    def __init__(self) -> None:
        # By model, height and width: what went wrong, if it did.
        self._asked: dict[tuple[str, int, int], str | None] = {}
        self._is_preparing = False

    def check(self, served: ServedModel, height: int, width: int) -> None:
        """Let a size of a model pass that is ready; begin to prepare another one.

        Raises:
            ServeError: 503 while it is prepared, 422 when it cannot be or there are too many.
        """
        model, asked = served.pipe.model, (served.name, height, width)
        if model.backend.is_ready(model.latent_size(height, width)):
            return
        shown = f"{height} x {width}"
        if problem := self._asked.get(asked):
            raise ServeError(422, "bad_size", f"frames of {shown} cannot be prepared: {problem}")
        if asked not in self._asked and len(self._asked) >= MAX_PREPARED:
            sizes = ", ".join(f"{h} x {w}" for name, h, w in self._asked if name == served.name)
            message = f"frames of {shown} are not prepared, and no further size will be; take one of {sizes}"
            raise ServeError(422, "bad_size", message)
        if not self._is_preparing:
            self._asked[asked] = None
            self._prepare(model, asked)
        message = f"frames of {shown} are prepared for their first stream; try again in a while"
        raise ServeError(503, "preparing", message, RETRY_S)

    def _prepare(self, model: StreamModel, asked: tuple[str, int, int]) -> None:
        """Begin; the thread is none of asyncio's, which a process that ends would wait for."""
        name, height, width = asked
        logger.info("preparing a size", extra={"model": name, "height": height, "width": width})
        self._is_preparing = True
        loop = asyncio.get_running_loop()
        size = model.latent_size(height, width)

        def work() -> None:
            problem = None
            try:
                model.backend.prepare(size)
            except Exception as error:
                logger.error("a size cannot be prepared", exc_info=error)
                problem = str(error).partition("\n")[0] or type(error).__name__
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._done, asked, problem)

        threading.Thread(target=work, name="pyrf-prepare", daemon=True).start()

    def _done(self, asked: tuple[str, int, int], problem: str | None) -> None:
        self._is_preparing, self._asked[asked] = False, problem
