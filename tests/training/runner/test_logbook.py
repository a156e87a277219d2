"""What a run writes down can be read back: lines of JSON, and TensorBoard's numbers and moving pictures."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pyrf.training.runner.logbook import Logbook


def test_numbers_and_videos_are_read_back(tmp_path: Path) -> None:
    video = np.zeros((5, 16, 24, 3), np.uint8)
    for i, frame in enumerate(video):
        frame[:, 4 * i : 4 * i + 4] = 255
    with Logbook(tmp_path, steps=10, step=0) as book:
        book.record(1, 0.5, {"loss": 2.0})
        book.record(2, 1.0, {"loss": 1.0, "videos/a": video})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").open()]
    assert lines == [{"step": 1, "seconds": 0.5, "loss": 2.0}, {"step": 2, "seconds": 1.0, "loss": 1.0}]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 2.0), (2, 1.0)]
    (picture,) = events.Images("videos/a")
    assert (picture.step, picture.width, picture.height) == (2, 24, 16)
    shown = Image.open(io.BytesIO(picture.encoded_image_string))
    assert isinstance(shown, GifImageFile)
    assert shown.n_frames == 5
    shown.seek(3)
    brightness = np.asarray(shown.convert("L")).mean(0)
    assert brightness[12:16].min() > 200
    assert brightness[:12].max() < 50
