"""What a training says while it runs: log.jsonl, TensorBoard, the terminal's progress bar."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pyrf.training.runner import processes

logger = logging.getLogger(__name__)


class Logbook:
    """Records of one run; only the first process writes.

    Args:
        folder: where log.jsonl and TensorBoard's events go.
        steps: of the whole run.
        step: done before.
    """

    def __init__(self, folder: Path, steps: int, step: int) -> None:
        self.folder, self.steps = folder, steps
        self.writes = processes.rank() == 0
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (self.writes and console.is_terminal),
        )
        self.task = self.progress.add_task(folder.name, total=steps, completed=step)
        if self.writes:
            from torch.utils.tensorboard import FileWriter

            self.events = FileWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Logbook:
        self.progress.start()
        self._log_to_stderr()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        self._log_to_stderr()
        if self.writes:
            self.events.close()

    def _log_to_stderr(self) -> None:
        """Let log lines pass above the bar, which stands in for stderr while it is shown."""
        if not self.progress.disable:
            for handler in logging.root.handlers:
                if isinstance(handler, logging.StreamHandler) and not isinstance(
                    handler, logging.FileHandler
                ):
                    handler.setStream(sys.stderr)

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        self.progress.update(self.task, completed=step)

    def record(self, step: int, seconds: float, values: Mapping[str, Any]) -> None:
        """Write numbers, and videos (uint8 [T, H, W, 3]) under their names.

        Args:
            seconds: of training until now; the rest is estimated from it.
        """
        if not self.writes:
            return
        from torch.utils.tensorboard.summary import scalar

        videos = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        numbers = {name: value for name, value in values.items() if name not in videos}
        line = {"step": step, "seconds": round(seconds, 1), **numbers}
        left = timedelta(seconds=round(seconds / max(1, step) * (self.steps - step)))
        logger.info("%s  left %s", "  ".join(f"{k} {_short(v)}" for k, v in line.items()), left)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in numbers.items():
            self.events.add_summary(scalar(name, value), step)
        for name, video in videos.items():
            self.events.add_summary(animation(name, video), step)
        self.events.flush()


def animation(name: str, video: NDArray[np.uint8], fps: float = 16.0) -> Any:
    """TensorBoard's summary of a moving picture, uint8 [T, H, W, 3]."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    frames = [Image.fromarray(frame) for frame in video]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0)
    height, width = video.shape[1:3]
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
    return Summary(value=[Summary.Value(tag=name, image=picture)])


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
