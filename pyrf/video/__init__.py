"""Frames to files and back.

These names are public. They are imported at first use, so that `import pyrf.video` is quick.
"""

from typing import TYPE_CHECKING

from pyrf.lazy import importer

if TYPE_CHECKING:
    from pyrf.video.encoding import EncoderSettings as EncoderSettings
    from pyrf.video.files import Video as Video
    from pyrf.video.files import check_output as check_output
    from pyrf.video.files import open_writer as open_writer
    from pyrf.video.live import iter_camera as iter_camera
    from pyrf.video.live import iter_frames as iter_frames
    from pyrf.video.provenance import Signer as Signer
    from pyrf.video.reader import read_frames as read_frames
    from pyrf.video.watermark import Watermark as Watermark

# Public name -> the module that holds it.
_HOMES = {
    "EncoderSettings": "pyrf.video.encoding",
    "Video": "pyrf.video.files",
    "open_writer": "pyrf.video.files",
    "check_output": "pyrf.video.files",
    "iter_camera": "pyrf.video.live",
    "iter_frames": "pyrf.video.live",
    "read_frames": "pyrf.video.reader",
    "Signer": "pyrf.video.provenance",
    "Watermark": "pyrf.video.watermark",
}

__all__ = [*_HOMES]
__getattr__ = importer(__name__, _HOMES)
