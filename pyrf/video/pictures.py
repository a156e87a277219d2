"""Frames as pictures: a contact sheet in one PNG or JPEG, or a folder of PNGs."""

from __future__ import annotations

import math
import os
from typing import Any

from pyrf.video.metadata import Metadata, for_jpeg, for_png
from pyrf.video.writer import FileWriter, Frames, PathLike


class SheetWriter(FileWriter):
    """Contact sheet: frames at even distances, row by row, in one PNG, or in a JPEG by its name.

    Keeps every stride-th frame and doubles the stride when the sheet is full, so it needs not know how
    many frames will come.
    """

    max_tiles = 24
    columns = 6
    gap = 2

    _tiles: list[Frames]

    def __init__(
        self, path: PathLike, fps: float, *, metadata: Metadata | None = None, keep_partial: bool = False
    ) -> None:
        is_jpeg = os.fspath(path).lower().endswith((".jpg", ".jpeg"))
        comment = for_jpeg(metadata or {}) if is_jpeg else None
        super().__init__(path, fps, metadata=metadata, keep_partial=keep_partial)
        self._options: dict[str, Any] = (
            {"format": "jpeg", "quality": 92, "subsampling": 0, "comment": comment}
            if is_jpeg
            else {"format": "png", "pnginfo": for_png(self.metadata)}
        )

    def _open(self, height: int, width: int) -> None:
        self._tiles = []
        self._stride = 1

    def _append(self, frame: Frames) -> None:
        if self.num_frames % self._stride:
            return
        if len(self._tiles) == self.max_tiles:
            self._tiles = self._tiles[::2]
            self._stride *= 2
            if self.num_frames % self._stride:
                return
        self._tiles.append(frame.copy())

    def _finish(self) -> None:
        from PIL import Image

        height, width, _ = self._tiles[0].shape
        columns = min(self.columns, len(self._tiles))
        rows = math.ceil(len(self._tiles) / columns)
        size = (columns * (width + self.gap) - self.gap, rows * (height + self.gap) - self.gap)
        sheet = Image.new("RGB", size, "white")
        for i, tile in enumerate(self._tiles):
            row, column = divmod(i, columns)
            sheet.paste(Image.fromarray(tile), (column * (width + self.gap), row * (height + self.gap)))
        with os.fdopen(os.dup(self._partial.descriptor), "wb") as file:
            sheet.save(file, **self._options)


class FolderWriter(FileWriter):
    """A folder of `frame_000000.png`, `frame_000001.png`, ...; the folder must be new or empty."""

    is_folder = True

    def _check_target(self) -> None:
        if self._target.is_dir() and any(self._target.iterdir()):
            raise ValueError(f"cannot write to {self.path}: the folder is not empty; name a new one")
        if self._target.is_symlink():  # still one after all were followed
            raise ValueError(f"cannot write to {self.path}: its symlinks form a loop; name a new folder")
        if self._target.exists() and not self._target.is_dir():
            raise ValueError(f"cannot write to {self.path}: it is a file; name a new folder")

    def _append(self, frame: Frames) -> None:
        from PIL import Image

        path = self._partial.path / f"frame_{self.num_frames:06d}.png"
        Image.fromarray(frame).save(path, pnginfo=for_png(self.metadata))

    def _finish(self) -> None:
        pass
