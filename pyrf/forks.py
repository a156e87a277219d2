"""What is made right in the child of a fork: threads are not copied, and locks stay as they were.

GNU OpenMP waits for ever for the threads that it had in the parent. So torch computes with one thread in the
child of a fork, which needs none of them.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, Protocol
from weakref import WeakSet

_ONE_THREAD = (
    "this process was forked after pyrf had loaded, so it computes with one CPU thread; "
    "start it by spawn, or load pyrf after the fork, to have them all"
)


class Follower(Protocol):
    """Holds threads or locks that a fork breaks."""

    def _after_fork(self) -> None:
        """Called in the child, where no other thread runs."""
        ...


_followers: WeakSet[Any] = WeakSet()
_slowed = False
"""Whether threads were taken from this process, and nobody was told yet."""


def follow(follower: Follower) -> None:
    """Call `follower._after_fork()` in every child that is forked while it lives."""
    _followers.add(follower)


def warn_once() -> None:
    """Say, before something is computed, that a fork is the reason to compute with one thread."""
    global _slowed
    if _slowed:
        _slowed = False
        warnings.warn(_ONE_THREAD, RuntimeWarning, stacklevel=2)


def _in_child() -> None:
    global _slowed
    # Looked up, as importing it here could wait for a lock that a thread of the parent held.
    set_num_threads = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if set_num_threads is not None:
        _slowed = sys.modules["torch"].get_num_threads() > 1
        set_num_threads(1)
    for follower in list(_followers):
        follower._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
