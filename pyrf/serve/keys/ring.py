"""The keys that a server takes: its token, the token of its metrics, and those of its file, read anew."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable

from pyrf.files import expanded
from pyrf.serve.keys.file import read_keys
from pyrf.serve.keys.key import Key, Right, hash_of
from pyrf.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Seconds between looks at whether the file has changed."""


class Keyring:
    """Knows who holds which key.

    Args:
        settings: they name the tokens and the file.

    Raises:
        ValueError: when the file cannot be read.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._file = settings.keys
        self._fixed: list[Key] = []
        if settings.token is not None:
            self._fixed += [Key(name="token", sha256=hash_of(settings.token), may=("sessions", "metrics"))]
        if settings.metrics_token is not None:
            hashed = hash_of(settings.metrics_token)
            self._fixed += [Key(name="metrics-token", sha256=hashed, may=("metrics",))]
        self._seen: tuple[int, ...] | None = None
        self._keys: tuple[Key, ...] = tuple(self._fixed)
        if self._file is not None:
            self._seen = self._signature()
            self._keys += read_keys(self._file)

    @property
    def keys(self) -> tuple[Key, ...]:
        """All of them, as they are now."""
        return self._keys

    def guards(self, right: Right) -> bool:
        """Whether a key must be shown for this."""
        return right == "admin" or self._file is not None or any(right in key.may for key in self._fixed)

    def find(self, secret: str) -> list[Key]:
        """The keys that this is, none if it is none. All are compared, so that time tells nothing."""
        hashed = hash_of(secret)
        return [key for key in self._keys if hmac.compare_digest(hashed, key.sha256)]

    def now(self, key: Key) -> Key | None:
        """What has become of a key: its quotas may have changed; None when it is revoked."""
        return next((one for one in self._keys if one.sha256 == key.sha256), None)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Read the file whenever it changes, without an end.

        A file that cannot be read changes nothing: the log tells of it, and the keys that were read last
        stay in force.

        Args:
            changed: called on the event loop, once there are other keys.
        """
        while self._file is not None:
            await asyncio.sleep(LOOK_S)
            if await asyncio.to_thread(self._read_anew, self._file):
                logger.info("keys changed", extra={"keys": len(self._keys)})
                changed()

    def _read_anew(self, file: str) -> bool:
        signature = self._signature()
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            self._keys = (*self._fixed, *read_keys(file))
        except Exception as error:  # whatever it is, later changes are to be seen
            logger.error("keys cannot be read; those from before stay in force", extra={"why": str(error)})
            return False
        return True

    def _signature(self) -> tuple[int, ...] | None:
        """What differs once the file was replaced or written to."""
        assert self._file is not None
        try:
            found = os.stat(expanded(self._file))  # noqa: PTH116  (a link may lead elsewhere at any time)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
