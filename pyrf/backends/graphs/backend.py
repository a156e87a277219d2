"""What engines that run exported graphs share: an export for each frame size, loaded once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pyrf.bundle.bundle import Bundle
from pyrf.export.manifest import ExportError
from pyrf.export.store import check_export, stored_export
from pyrf.models.codecs.codec import Codec

Graphs = TypeVar("Graphs")


class GraphBackend(Generic[Graphs]):
    """The exports of a bundle (a part of `pyrf.backends.base.Backend`).

    Args:
        bundle: what to stream.
        codec: the bundle's, loaded.
        dtype: of the exports.
        load: loads an exported folder.
        exported: a folder that `pyrf export` wrote of this bundle; None: export when a size is first used.

    Raises:
        ValueError: when the folder does not fit.
    """

    def __init__(
        self,
        bundle: Bundle,
        codec: Codec,
        *,
        dtype: str,
        load: Callable[[Path], Graphs],
        exported: str | Path | None,
    ) -> None:
        self._bundle, self._codec, self._dtype, self._load = bundle, codec, dtype, load
        self._exported = None if exported is None else Path(exported)
        self._size: tuple[int, int] | None = None
        """Of the latents that `exported` is for."""
        if self._exported is not None:
            manifest = check_export(self._exported, bundle, dtype=dtype)
            self._size = manifest.height, manifest.width
        self._loaded: dict[tuple[int, int], Graphs] = {}
        self._lock = threading.Lock()  # streams in other threads may ask for the same size

    def check_size(self, height: int, width: int) -> None:
        """See `Backend.check_size`."""
        if self._size is not None and self._size != (height, width):
            has, asked = (
                " x ".join(str(n * self._codec.spatial_stride) for n in size)
                for size in (self._size, (height, width))
            )
            raise ExportError(
                f"{self._exported} was exported for frames of {has}, got {asked}; "
                "take its height and width, or export yours"
            )

    def _graphs(self, height: int, width: int) -> Graphs:
        """What is loaded for latents of a size."""
        self.check_size(height, width)
        with self._lock:
            if (height, width) not in self._loaded:
                stride = self._codec.spatial_stride
                folder = self._exported or stored_export(
                    self._bundle, dtype=self._dtype, height=height * stride, width=width * stride
                )
                self._loaded[height, width] = self._load(folder)
            return self._loaded[height, width]
