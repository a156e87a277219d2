"""How a session's stream follows what its viewer sends to be restyled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrf.serve.sessions.camera import Camera

if TYPE_CHECKING:
    from pyrf.streaming.stream import Stream


class Restyling:
    """Belongs to the event loop; what is asked for acts when the next chunk begins.

    Attributes:
        camera: what the viewer sends, if anything.
        strength: how far the prompt changes it, 0..1; None: the prompt is shown alone.
        shows_camera: whether the stream has it as its source.
    """

    def __init__(self) -> None:
        self.camera: Camera | None = None
        self.strength: float | None = None
        self.shows_camera = False
        self._follows_motion = False

    def ask(self, strength: float | None, follow_motion: bool = False) -> None:
        """Restyle the camera's pictures with a strength, None: let the camera go."""
        self.strength, self._follows_motion = strength, follow_motion
        if strength is None:
            self.camera = None

    def act(self, stream: Stream) -> None:
        """The stream follows the camera, once there is a picture: the model's thread waits for none."""
        if (self.strength is None and not self.shows_camera) or stream.closed:
            return
        if self.strength is not None:
            stream.strength = self.strength
            stream.follow_motion = self._follows_motion
        if self.camera is None:
            if self.shows_camera:
                stream.set_source(None)
            self.shows_camera = False
        elif not self.shows_camera and self.camera.feed.ready:
            stream.set_source(self.camera.feed)
            self.shows_camera = True
