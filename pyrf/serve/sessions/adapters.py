"""The adapters of a server's model: who may change their strengths, and from when on."""

from __future__ import annotations

from collections.abc import Mapping

from pyrf.protocol import ServedAdapter
from pyrf.serve.errors import ServeError
from pyrf.serve.settings import ServeSettings
from pyrf.streaming.adapters import LiveAdapters


class ServedAdapters:
    """The adapters of one pipeline. Belongs to the event loop.

    All sessions share the model's weights. So strengths may change where there is one session at a time,
    which begins with the server's own strengths, or where the operator lets viewers share them.

    Args:
        adapters: the pipeline's.
        settings: of the server.
    """

    def __init__(self, adapters: LiveAdapters, settings: ServeSettings) -> None:
        self._adapters, self._shared = adapters, settings.shared_adapters
        self._alone = settings.max_sessions == 1
        # Until a chunk is started: the reply named it, and the model's thread may still be at another.
        self._pending: dict[str, float] = {}

    @property
    def are_live(self) -> bool:
        """Whether viewers may change strengths."""
        return self._adapters.can_change and (self._alone or self._shared)

    @property
    def are_shared(self) -> bool:
        """Whether others see what one viewer changes."""
        return self._shared and not self._alone

    @property
    def strengths(self) -> dict[str, float]:
        """By name: those of the next chunk that is started."""
        return {**self._adapters.strengths, **self._pending}

    def shown(self) -> list[ServedAdapter]:
        """What clients are told."""
        return [ServedAdapter(name=name, strength=value) for name, value in self.strengths.items()]

    def begin_session(self) -> None:
        """A session begins: alone it finds the strengths that the server was started with."""
        if self.are_live and not self.are_shared:
            self._pending = {}
            self._adapters.want(self._adapters.initial)

    def change(self, strengths: Mapping[str, float]) -> None:
        """Change strengths at the next chunk that is started.

        Raises:
            ServeError: 422 for an adapter that is not there or graphs that cannot change, 409 where viewers
                may not.
        """
        try:
            checked = self._adapters.check(strengths)
        except ValueError as error:
            raise ServeError(422, "bad_adapter", str(error)) from None
        if not self.are_live:
            raise ServeError(
                409,
                "adapters_fixed",
                "all sessions of this server share the adapters, so their strengths do not change; "
                "its operator may start it with --shared-adapters, or --max-sessions 1",
            )
        self._pending.update(checked)

    def start_chunk(self) -> None:
        """A chunk is started: what was asked for acts from here on."""
        if self._pending:
            self._adapters.want(self._pending)
            self._pending = {}
