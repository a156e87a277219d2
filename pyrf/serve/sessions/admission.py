"""Whether a session is let in: room, quotas and rates, over the sessions of all models."""

from __future__ import annotations

from collections.abc import Collection

from pyrf.protocol import SessionRequest
from pyrf.serve.errors import ServeError
from pyrf.serve.keys.key import Key
from pyrf.serve.models import ServedModel
from pyrf.serve.sessions.accounts import Accounts
from pyrf.serve.sessions.chunks import SessionOptions
from pyrf.serve.sessions.quotas import BUSY_RETRY_S, over_quota
from pyrf.serve.sessions.rates import RateLimit
from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.sizes import Sizes
from pyrf.serve.settings import ServeSettings


class Admission:
    """Looks at requests before anything is spent on them. Lives on the event loop.

    Args:
        settings: limits and policies.
        accounts: what API keys have used.

    Attributes:
        ending: whether the server shuts down.
        closed_to_new: whether whoever runs the server has it take no new sessions.
    """

    def __init__(self, settings: ServeSettings, accounts: Accounts) -> None:
        self._settings, self._accounts = settings, accounts
        self.ending = self.closed_to_new = False
        self._sizes = Sizes()
        self._creates = RateLimit(settings.creates_per_minute / 60, settings.creates_per_minute)

    def take(
        self,
        request: SessionRequest,
        model: ServedModel,
        address: str,
        sessions: Collection[Session],
        *,
        key: Key | None = None,
        is_clip: bool = False,
    ) -> SessionOptions:
        """What a session will be, where its asker may have one more.

        Args:
            model: that it chooses.
            address: of whoever asks.
            sessions: that are live.
            key: that was shown.

        Raises:
            ServeError: 422 for what the model cannot make, 429 for who holds its share already or asks too
                often, 503 when there is no room, or while the size is prepared.
        """
        height, width = model.check_size(request.height, request.width)
        model.start_of(request)
        self.check_room(sessions)
        self._sizes.check(model, height, width)
        if problem := over_quota(sessions, address, is_clip, self._settings):
            raise ServeError(429, "quota", problem, BUSY_RETRY_S)
        self._accounts.check(key, sessions)
        if wait := self._creates.wait_for(address):
            message = f"at most {self._settings.creates_per_minute:g} sessions a minute; wait {wait:.1f} s"
            raise ServeError(429, "rate_limited", message, wait)
        grace_s = self._settings.grace_s
        if request.grace_s is not None:
            grace_s = min(grace_s, request.grace_s)
        return SessionOptions(
            seed=request.seed,
            height=height,
            width=width,
            fps=model.pipe.fps,
            pace=request.pace,
            grace_s=grace_s,
            lead_s=self._settings.lead_s,
            buffer_chunks=self._settings.buffer_chunks,
            pause_s=self._settings.pause_s,
            address=address,
            is_clip=is_clip,
            key=key,
            model=model.name,
            together=model.together,
        )

    def check_again(self, options: SessionOptions, sessions: Collection[Session]) -> None:
        """Whether there is still room for who was admitted: others may have come meanwhile.

        Raises:
            ServeError: as `take` does.
        """
        self.check_room(sessions)
        self._accounts.check(options.key, sessions)

    def check_open(self) -> None:
        """Whether the server takes sessions, room given.

        Raises:
            ServeError: 503 when it does not.
        """
        if self.ending:
            raise ServeError(503, "shutting_down", "the server shuts down; try again", BUSY_RETRY_S)
        if self.closed_to_new:
            message = "the server takes no new sessions at the moment; try again later"
            raise ServeError(503, "draining", message, BUSY_RETRY_S)

    def check_room(self, sessions: Collection[Session]) -> None:
        """Whether there is room for one more session.

        Raises:
            ServeError: 503 when there is none.
        """
        self.check_open()
        if len(sessions) >= self._settings.max_sessions:
            message = f"all {self._settings.max_sessions} sessions are taken; try again later"
            raise ServeError(503, "full", message, BUSY_RETRY_S)
