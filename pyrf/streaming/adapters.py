"""Adapters of a pipeline, whose strengths change while streams run. All streams share its weights."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from pyrf import forks
from pyrf.bundle.adapter_file import check_strength
from pyrf.models.dit.adapter import Adapter


class Weights(Protocol):
    """A network's weights with adapters merged into them, wherever they are
    (`pyrf.models.dit.merging.MergedWeights`).

    Attributes:
        strengths: of the adapters by name, as they are merged now.
    """

    strengths: dict[str, float]

    def merge(self, strengths: Mapping[str, float]) -> None:
        """Make the weights anew that a change of strengths touches; adapters not named keep theirs."""
        ...


class LiveAdapters:
    """The adapters of a pipeline, and the strengths that its streams have.

    A change waits until no chunk is under way. Then the thread that begins the next one merges the weights.
    So every chunk is made with one set of strengths.

    Args:
        adapters: in the order in which they are merged.
        merged: the network's weights; None: the adapters are built into graphs, and nothing can change.
        shared: whether a stream may change the strengths of others.

    Attributes:
        initial: strengths at which the pipeline was loaded.
        version: how often the weights have changed.
    """

    def __init__(
        self, adapters: Sequence[Adapter] = (), merged: Weights | None = None, *, shared: bool = False
    ) -> None:
        self.initial = {adapter.name: adapter.strength for adapter in adapters}
        self.shared = shared
        self.version = 0
        self._merged = merged
        self._wanted = dict(self.initial)
        self._streams: WeakSet[object] = WeakSet()
        self._chunks, self._merging = 0, False
        self._turn = threading.Condition()
        forks.follow(self)

    def _after_fork(self) -> None:
        """Go on in the child of a fork, where no other thread is at a chunk (a `pyrf.forks.Follower`)."""
        self._turn, self._chunks, self._merging = threading.Condition(), 0, False

    @property
    def strengths(self) -> dict[str, float]:
        """By name: those in force, or those that will be at the next chunk."""
        with self._turn:
            return dict(self._wanted)

    @property
    def can_change(self) -> bool:
        """Whether there are adapters, and on a backend that can change their strengths."""
        return self._merged is not None

    def join(self, stream: object) -> None:
        """A stream begins to see the weights; one that is forgotten leaves by itself."""
        with self._turn:
            self._streams.add(stream)

    def leave(self, stream: object) -> None:
        """A stream has ended."""
        with self._turn:
            self._streams.discard(stream)

    def check(self, strengths: Mapping[str, float]) -> dict[str, float]:
        """Strengths by name, if there are such adapters and they can change.

        Raises:
            ValueError: which one there is not, or why nothing can change.
        """
        if not isinstance(strengths, Mapping):
            raise ValueError(
                f'strengths are given by name, as {{"style": 0.5}}, got {type(strengths).__name__}'
            )
        for name in strengths:
            if name not in self.initial:
                known = ", ".join(map(repr, self.initial)) or "none; give adapters when the model is loaded"
                raise ValueError(f"no adapter {name!r}; there are: {known}")
        checked = {name: check_strength(name, strength) for name, strength in strengths.items()}
        if checked and not self.can_change:
            raise ValueError(
                "this backend's graphs have their adapters built in, so that strengths cannot change; "
                "load the model again with others, or use backend torch"
            )
        return checked

    def check_alone(self, stream: object | None) -> None:
        """Refuse a change that other streams would see, unless they share their adapters.

        Args:
            stream: who wants the change; None: nobody of them.

        Raises:
            ValueError: when there are others.
        """
        with self._turn:
            others = [other for other in self._streams if other is not stream]
        if others and not self.shared:
            raise ValueError(
                f"streams of a pipeline share its weights, and {len(others)} more would change; close them, "
                "or load the model with shared_adapters=True"
            )

    def want(self, strengths: Mapping[str, float]) -> None:
        """Change strengths that `check` has returned, at the next chunk of any stream."""
        with self._turn:
            self._wanted.update(strengths)

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """Inside, a chunk is made, and the weights stay; on entering, what is wanted is put in force."""
        if self._merged is None:
            yield
            return
        while not self._begin_chunk(self._merged):
            pass
        try:
            yield
        finally:
            with self._turn:
                self._chunks -= 1
                self._turn.notify_all()

    def _begin_chunk(self, merged: Weights) -> bool:
        """Count a chunk, if the weights are what is wanted; else merge them, with nobody else at a chunk.

        Who asks for strengths or wants others does not wait for the merge.
        """
        with self._turn:
            self._turn.wait_for(
                lambda: not self._merging and (self._wanted == merged.strengths or not self._chunks)
            )
            if self._wanted == merged.strengths:
                self._chunks += 1
                return True
            self._merging, strengths = True, dict(self._wanted)
        try:
            merged.merge(strengths)
        finally:
            with self._turn:
                self._merging = False
                self.version += 1
                self._turn.notify_all()
        return False
