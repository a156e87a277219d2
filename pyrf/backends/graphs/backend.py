"""What backends that run exported graphs share: an export for each frame size, loaded once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pyrf import forks
from pyrf.bundle.bundle import Bundle
from pyrf.config import LatentSize
from pyrf.export.errors import ExportError
from pyrf.export.store import check_export, stored_export
from pyrf.files import expanded
from pyrf.models.codecs.codec import Codec, latent_size

Graphs = TypeVar("Graphs")


class GraphBackend(Generic[Graphs]):
    """The exports of a bundle (a part of `pyrf.backends.base.Backend`).

    Args:
        bundle: what to stream.
        codec: the bundle's, loaded.
        dtype: of the exports.
        load: loads an exported folder.
        exported: a folder that `pyrf export` wrote of this bundle; None: export when a size is first used.
        precision: of the exports, see `export_onnx`.

    Raises:
        ValueError: when the folder does not fit.
    """

    has_frame_timesteps = False
    """A graph's modulations are those of one timestep."""

    def __init__(
        self,
        bundle: Bundle,
        codec: Codec,
        *,
        dtype: str,
        load: Callable[[Path], Graphs],
        exported: str | Path | None,
        precision: str | None,
    ) -> None:
        self._bundle, self._codec, self._load = bundle, codec, load
        self._dtype, self._precision = dtype, precision
        self._exported = None if exported is None else Path(expanded(exported)).absolute()
        # Of the latents that `exported` is for.
        self._size: LatentSize | None = None
        if self._exported is not None:
            self._size = check_export(self._exported, bundle, dtype=dtype, precision=precision).size
        self._loaded: dict[LatentSize, Graphs] = {}
        self._lock = threading.Lock()  # streams in other threads may ask for the same size
        forks.follow(self)
        self._graphs(self._size or latent_size(bundle.height, bundle.width, codec))

    def _after_fork(self) -> None:
        """Go on in the child of a fork, where no thread holds the lock (a `pyrf.forks.Follower`)."""
        self._lock = threading.Lock()

    def check_size(self, size: LatentSize) -> None:
        """Refuse latents of another size than those of `exported`.

        Raises:
            ExportError: naming the frame size in pixels that it has.
        """
        if self._size is not None and self._size != size:
            has, asked = (
                " x ".join(str(n * self._codec.spatial_stride) for n in latents)
                for latents in (self._size, size)
            )
            raise ExportError(
                f"{self._exported} was exported for frames of {has}, got {asked}; "
                "take its height and width, or export yours"
            )

    def is_ready(self, size: LatentSize) -> bool:
        """Whether the export for latents of a size is loaded."""
        return size in self._loaded

    def prepare(self, size: LatentSize) -> None:
        """Export for latents of a size, and load that: minutes for a large model.

        Raises:
            ValueError: when it cannot be exported.
        """
        self._graphs(size)

    def _graphs(self, size: LatentSize) -> Graphs:
        """What is loaded for latents of a size."""
        self.check_size(size)
        if size in self._loaded:  # without the lock, which an export of another size may hold for minutes
            return self._loaded[size]
        with self._lock:
            if size not in self._loaded:
                height, width = (n * self._codec.spatial_stride for n in size)
                folder = self._exported or stored_export(
                    self._bundle, dtype=self._dtype, precision=self._precision, height=height, width=width
                )
                self._loaded[size] = self._load(folder)
            return self._loaded[size]
