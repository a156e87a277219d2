"""A stream as a camera of this machine, for programs that film: video calls and OBS."""

from __future__ import annotations

from typing import Any

from pyrf.extras import needs
from pyrf.video.metadata import Metadata
from pyrf.video.writer import Frames, FrameWriter


class CameraWriter(FrameWriter):
    """A `Sink` that shows frames as a virtual camera, each when it is due.

    Linux needs the kernel's module v4l2loopback, macOS and Windows need OBS.

    Args:
        device: as the system names it, such as /dev/video9; "": the first.
        fps: frames per second.

    Raises:
        MissingExtraError: when pyvirtualcam is not installed.
        ValueError: with the first frame, when there is no such camera.
    """

    kind = "a virtual camera"

    def __init__(self, device: str, fps: float, *, metadata: Metadata | None = None) -> None:
        super().__init__(f"camera:{device}", fps, metadata)
        with needs("camera", "a virtual camera"):
            import pyvirtualcam
        self._module, self._device = pyvirtualcam, device
        self._camera: Any = None

    def _open(self, height: int, width: int) -> None:
        try:
            self._camera = self._module.Camera(
                width=width, height=height, fps=self.fps, device=self._device or None
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(
                f"cannot open {self.name} with {height} x {width}: {str(error).strip()}; on Linux load the "
                "module v4l2loopback, elsewhere install OBS"
            ) from error

    def _append(self, frame: Frames) -> None:
        self._camera.send(frame)
        self._camera.sleep_until_next_frame()

    def close(self) -> None:
        """Switch the camera off."""
        self.discard()
        if not self.num_frames:
            raise ValueError(f"no frames were shown by {self.name}")

    def discard(self) -> None:
        """Switch the camera off."""
        self._closed = True
        if self._camera is not None:
            self._camera.close()
