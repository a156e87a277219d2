"""Exports of a random bundle whose heads are as wide as the CUDA kernels take them; made once a process."""

import atexit
import logging
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from pyrf.bundle import Bundle, load_bundle, save_bundle
from pyrf.config import StreamConfig
from pyrf.export.exporter import export_onnx
from tests.support import networks

logging.getLogger("torch.__trace").propagate = False  # pytest would keep a record of every fake tensor

MODEL = replace(networks.MODEL, dim=128, num_heads=2, ffn_dim=128)
STREAM = StreamConfig(sink_alpha=0.9)
HEIGHT, WIDTH = 32, 48


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pyrf-exports-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def bundle() -> Bundle:
    """The bundle, on disk."""
    path = save_bundle(
        _folder() / "bundle",
        transformer=networks.dit(MODEL),
        codec=networks.codec(),
        text_encoder=networks.text_encoder(),
        stream_config=STREAM,
        height=HEIGHT,
        width=WIDTH,
    )
    return load_bundle(str(path))


@cache
def exported(dtype: str, precision: str | None = None) -> Path:
    """The folder of its export in a dtype; read-only by agreement."""
    folder = _folder() / (f"{dtype}-{precision}" if precision else dtype)
    export_onnx(bundle(), folder, dtype=dtype, precision=precision)
    return folder
