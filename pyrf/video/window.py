"""A stream in a window of this desktop."""

from __future__ import annotations

import time
from typing import Any

from pyrf.video.metadata import Metadata
from pyrf.video.writer import Frames, FrameWriter

SMALLEST = 384
"""Pixels in width below which frames are shown larger, by whole factors."""


class WindowWriter(FrameWriter):
    """A `Sink` that shows frames in a window, each when it is due. Closing the window ends the stream.

    Args:
        fps: frames per second.

    Raises:
        ValueError: with the first frame, when there is no desktop; later, when the window was closed.
    """

    kind = "a window"

    def __init__(self, fps: float, *, metadata: Metadata | None = None) -> None:
        super().__init__("window:", fps, metadata)
        try:
            import tkinter
        except ImportError as error:
            raise ValueError("a window needs Python's tkinter; on Debian install python3-tk") from error
        self._tkinter = tkinter
        self._window: Any = None
        self._label: Any = None
        self._due = 0.0

    def _open(self, height: int, width: int) -> None:
        try:
            self._window = self._tkinter.Tk(className="pyrf")
        except self._tkinter.TclError as error:
            raise ValueError(f"cannot open a window: {error}; name a file or an address instead") from error
        self._window.title(str(self.metadata.get("prompt", "pyrf")))
        self._label = self._tkinter.Label(self._window, borderwidth=0)
        self._label.pack()
        self._due = time.monotonic()

    def _append(self, frame: Frames) -> None:
        from PIL import Image, ImageTk

        height, width, _ = frame.shape
        factor = max(1, SMALLEST // width)
        picture = Image.fromarray(frame).resize((factor * width, factor * height), Image.Resampling.NEAREST)
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due, time.monotonic()) + 1 / self.fps
        try:
            shown = ImageTk.PhotoImage(picture, master=self._window)
            self._label.configure(image=shown)
            self._label.image = shown  # Tk itself does not keep it
            self._window.update()
        except self._tkinter.TclError as error:
            raise ValueError("the window was closed") from error

    def close(self) -> None:
        """Close the window."""
        self.discard()
        if not self.num_frames:
            raise ValueError("no frames were shown in the window")

    def discard(self) -> None:
        """Close the window."""
        self._closed = True
        window, self._window = self._window, None
        if window is not None:
            try:
                window.destroy()
            except self._tkinter.TclError:  # someone has closed it
                return
