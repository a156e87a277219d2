"""How a stream begins with an image: as its past, or as its own first frame."""

from __future__ import annotations

from dataclasses import dataclass

from pyrf.config import DEFAULT_START, STARTS, Fit, StartKind
from pyrf.streaming.model import StreamModel
from pyrf.streaming.source import whole_chunks
from pyrf.video.fitting import check_fit
from pyrf.video.image import Picture, fitted_picture
from pyrf.video.writer import Frames


@dataclass(frozen=True, eq=False)
class Start:
    """What a stream starts from.

    Attributes:
        frames: uint8 [T, H, W, 3]; one frame where the kind is "first_frame".
        kind: what they are to it.
    """

    frames: Frames
    kind: StartKind

    @property
    def continues(self) -> bool:
        """Whether the frames come before those that are shown."""
        return self.kind == "still"


def check_start(model: StreamModel, start: str | None, *, image: bool, video: bool) -> StartKind | None:
    """How a stream starts; None where it starts from noise.

    Args:
        start: as it was asked for; None: `DEFAULT_START`, or "still" where the backend cannot do that.
        image, video: whether it has one to start from.

    Raises:
        ValueError: when there is no such start, nothing to start from, or the backend or the length of chunks
            does not allow it.
    """
    if start is not None and start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    if image and video:
        raise ValueError("give an image or a video to start from, not both")
    if start is not None and not image:
        given = "a video, which is always continued" if video else "none"
        raise ValueError(
            f"start={start!r} says how an image begins the stream, and there is {given}; leave it out"
        )
    if video:
        return "still"
    if not image:
        return None
    one_frame_chunks = model.stream_config.chunk_frames == 1  # then nothing of the first chunk is denoised
    can_hold = one_frame_chunks or model.backend.has_frame_timesteps
    if start is None:
        return DEFAULT_START if can_hold else "still"
    if start == "still":
        return "still"
    if not can_hold:
        raise ValueError(
            'start="first_frame" needs a timestep per latent frame, and an exported graph has one per chunk; '
            'begin with start="still", or use the backend torch'
        )
    return "first_frame"


def start_from(
    model: StreamModel,
    image: Picture | None,
    video: Frames | None,
    height: int,
    width: int,
    *,
    start: str | None = None,
    fit: Fit = "crop",
) -> Start | None:
    """What a stream starts from; None where that is noise.

    Args:
        image: of any size, see `pyrf.video.image.Picture`.
        video: [T, H, W, 3] of the stream's size, see `whole_chunks`.
        height, width: of the stream's frames in pixels.
        start: see `check_start`.
        fit: what becomes of an image of another size.

    Raises:
        ValueError: when both are given, or something has the wrong kind or size.
    """
    check_fit(fit)
    kind = check_start(model, start, image=image is not None, video=video is not None)
    if kind is None:
        return None
    if image is None:
        assert video is not None
        return Start(whole_chunks(model, video, height, width), kind)
    frames = fitted_picture(image, height=height, width=width, fit=fit)[None]
    if kind == "still":
        frames = whole_chunks(model, frames, height, width)
    return Start(frames, kind)
