"""Long videos in clips of 2 seconds, and what is computed over the clips of a video: scores and drift.

VBench-Long cuts a video, scores its clips, and takes the mean over them and then over videos. Drift is how
far imaging quality leaves its level, in one of two definitions: the standard deviation over the clips, which
Reward Forcing prints, and the distance of the first 5 seconds from the last 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import NamedTuple

import numpy as np

from pyrf.evaluation.vbench.results import PERCENT, Result
from pyrf.evaluation.vbench.totals import DIMENSIONS

CLIP_S = 2
END_S = 5
"""Seconds at each end for the second definition of drift."""
_NAME = re.compile(r"(.+) clip(\d{3})\.mp4")


class Drift(NamedTuple):
    """Points of imaging quality, means over videos: by deviation over clips, and between the ends."""

    deviation: float
    ends: float


def cut(videos: Sequence[Path], out: Path) -> int:
    """Cut videos into clips of 2 seconds, encoded anew; return the number of clips.

    What is left at the end of a video is dropped. A video whose clips are there is not cut again.

    Raises:
        ValueError: when a video cannot be read, or is shorter than a clip.
        OSError: when a clip cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for video in videos:
        done = sorted(out.glob(f"{_glob(video.stem)} clip*.mp4"))
        count += len(done) or _cut_one(video, out)
    return count


def _cut_one(video: Path, out: Path) -> int:
    """The first clip is written last, so that what was stopped is cut again."""
    from pyrf.video.files import Video

    first: Video | None = None
    count = 0
    for frames, fps in _pieces(video):
        clip = Video(frames, fps)
        if first is None:
            first = clip
        else:
            clip.save(out / f".{video.stem} clip{count:03}.mp4")
        count += 1
    if first is None:
        raise ValueError(f"{video} is shorter than a clip of {CLIP_S} s")
    first.save(out / f".{video.stem} clip000.mp4")
    for number in range(count):
        name = f"{video.stem} clip{number:03}.mp4"
        (out / f".{name}").replace(out / name)
    return count


def _pieces(video: Path) -> Iterator[tuple[np.ndarray, float]]:
    import av

    from pyrf.video.reader import refusals

    with refusals(video), av.open(str(video)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 16)
        frames = []
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == round(CLIP_S * fps):
                yield np.stack(frames), fps
                frames = []


def by_video(result: Result) -> dict[str, list[float]]:
    """Values of the clips of each video, in order of time.

    Raises:
        ValueError: when a path is not that of a clip, or a video lacks clips.
    """
    found: dict[str, dict[int, float]] = {}
    for path, value in result.videos:
        name = _NAME.fullmatch(Path(path).name)
        if name is None:
            raise ValueError(f"{path} is no clip; score long videos with pyrf eval vbench-long score")
        found.setdefault(name[1], {})[int(name[2])] = value
    for video, clips in found.items():
        if sorted(clips) != list(range(len(clips))):
            raise ValueError(f"{video}: of {max(clips) + 1} clips only {len(clips)} were scored")
    return {video: [clips[i] for i in sorted(clips)] for video, clips in sorted(found.items())}


def long_scores(results: dict[str, Result]) -> dict[str, float]:
    """Dimension -> share: the mean over the clips of a video, then over videos."""
    scores = {}
    for name in (name for name in DIMENSIONS if name in results):
        score = fmean(fmean(clips) for clips in by_video(results[name]).values())
        scores[name] = score / 100 if name == PERCENT else score
    return scores


def drift(imaging: Result) -> Drift:
    """Both definitions, from the clips' imaging quality.

    The deviation is that of a population. A clip that lies half within the 5 seconds counts half.

    Raises:
        ValueError: when a video has fewer than 5 clips, so that its ends are one.
    """
    videos = by_video(imaging)
    weights = [1.0] * (END_S // CLIP_S) + [(END_S % CLIP_S) / CLIP_S]
    ends = []
    for name, clips in videos.items():
        if len(clips) < 2 * END_S / CLIP_S:
            raise ValueError(
                f"{name}: drift needs {2 * END_S} s at least, and it has {CLIP_S * len(clips)} s"
            )
        first, last = np.average(clips[:3], weights=weights), np.average(clips[:-4:-1], weights=weights)
        ends.append(abs(float(first - last)))
    return Drift(fmean(pstdev(clips) for clips in videos.values()), fmean(ends))


def _glob(stem: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", stem)
