"""What libraries that pyrf uses would report about their users is switched off."""

from __future__ import annotations

import os

SWITCHES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables of the Hugging Face hub, ONNX Runtime and Ray. ONNX Runtime would also keep the
number of this machine below the home folder."""


def switch_off() -> None:
    """Ask the libraries to report nothing; what the environment says already stays.

    They look when they are imported, so `import pyrf` does it.
    """
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
