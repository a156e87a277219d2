"""What viewers send of their own video: who may, how much, and who decodes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pyrf.protocol import ErrorDetail, ErrorMessage
from pyrf.serve.errors import ServeError
from pyrf.serve.sessions.camera import Camera
from pyrf.serve.sessions.rates import RateLimit
from pyrf.serve.sessions.session import Session
from pyrf.serve.settings import ServeSettings


class ViewersSources:
    """The sources of all sessions. Belongs to the event loop.

    Args:
        settings: of the server.

    Attributes:
        decoder: the thread that decodes what viewers send.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        rate = settings.source_frames_per_second
        self._rate = RateLimit(rate, 2 * rate)
        self.decoder = ThreadPoolExecutor(1, thread_name_prefix="pyrf-source")

    def begin(self, session: Session, frames_in_chunk: int) -> None:
        """Take frames of the session's viewer from now on; what is wrong in them the viewer will hear.

        Args:
            frames_in_chunk: of its stream.
        """
        if session.restyling.camera is None:
            session.restyling.camera = Camera(
                session.size,
                session.options.fps,
                frames_in_chunk,
                self._settings.max_source_pixels,
                self.decoder,
                lambda problem: session.announce(
                    ErrorMessage(error=ErrorDetail(code="bad_frame", message=problem))
                ),
            )

    def show(self, session: Session, jpeg: bytes) -> bool:
        """Take a frame.

        Returns:
            Whether it was taken: False when frames come too fast.

        Raises:
            ServeError: when no `source` came before it, or it has too many bytes.
        """
        if self._rate.wait_for(session.id):
            return False
        if session.restyling.camera is None:
            raise ServeError(409, "bad_frame", "a `source` message comes before frames; send it first")
        if len(jpeg) > (limit := self._settings.max_source_bytes):
            message = f"a source frame may have {limit} bytes, got {len(jpeg)}; shrink it"
            raise ServeError(413, "bad_frame", message)
        session.restyling.camera.show(jpeg)
        return True

    def close(self) -> None:
        """Decode nothing more."""
        self.decoder.shutdown(wait=False)
