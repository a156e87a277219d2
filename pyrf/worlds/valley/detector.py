"""placeholder"""

from typing import Any


def detect(frames: Any) -> Any:
    raise NotImplementedError
