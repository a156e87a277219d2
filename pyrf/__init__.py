"""Real-time streaming text-to-video with Reward Forcing (arXiv 2512.04678)."""

from typing import TYPE_CHECKING

from pyrf import telemetry
from pyrf.lazy import importer

telemetry.switch_off()
__version__ = "0.1.0"

if TYPE_CHECKING:
    from pyrf.config import ModelConfig as ModelConfig
    from pyrf.config import StreamConfig as StreamConfig
    from pyrf.endpoints.expand import PromptExpander as PromptExpander
    from pyrf.pipeline import StreamingPipeline as StreamingPipeline
    from pyrf.streaming.change import Change as Change
    from pyrf.streaming.change import Scheduled as Scheduled
    from pyrf.streaming.chunk import Chunk as Chunk
    from pyrf.streaming.chunk import Timing as Timing
    from pyrf.streaming.notices import PromptWarning as PromptWarning
    from pyrf.streaming.restyle import Source as Source
    from pyrf.streaming.script import Script as Script
    from pyrf.streaming.stream import Stream as Stream
    from pyrf.video.files import Video as Video

# Public name -> the module that holds it; imported at first use, so that `import pyrf` needs no torch.
_HOMES = {
    "Change": "pyrf.streaming.change",
    "Chunk": "pyrf.streaming.chunk",
    "ModelConfig": "pyrf.config",
    "PromptExpander": "pyrf.endpoints.expand",
    "PromptWarning": "pyrf.streaming.notices",
    "Scheduled": "pyrf.streaming.change",
    "Script": "pyrf.streaming.script",
    "Source": "pyrf.streaming.restyle",
    "Stream": "pyrf.streaming.stream",
    "StreamConfig": "pyrf.config",
    "StreamingPipeline": "pyrf.pipeline",
    "Timing": "pyrf.streaming.chunk",
    "Video": "pyrf.video.files",
}

__all__ = ["__version__", *_HOMES]
__getattr__ = importer(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
