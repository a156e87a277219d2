"""Frames to files and back.

These names are public. They are imported at first use, so that `import pyrf.video` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrf.video.files import Video as Video
    from pyrf.video.files import check_output as check_output
    from pyrf.video.files import open_writer as open_writer
    from pyrf.video.reader import read_frames as read_frames

# Public name -> the module that holds it.
_HOMES = {
    "Video": "pyrf.video.files",
    "open_writer": "pyrf.video.files",
    "check_output": "pyrf.video.files",
    "read_frames": "pyrf.video.reader",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
