"""Videos of VBench's prompts in a folder: resumable, shared between machines, and with a manifest.

VBench takes the first name in its folder for the suffix of all videos, so `videos/` holds nothing else.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from pyrf.checks import check_whole
from pyrf.config import MAX_SEED
from pyrf.evaluation.manifest import code_version, keep_manifest
from pyrf.evaluation.vbench.makers import Form, Maker
from pyrf.evaluation.vbench.prompts import Prompt
from pyrf.export.manifest import file_entry
from pyrf.printing import tell

SAMPLES = 5
"""Videos of each prompt."""


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "2/8".

        Raises:
            ValueError: when it is no part of a whole.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"--shard must be as 2/8, a part from 1 and their number, got {text!r}")
        return cls(int(found[1]), int(found[2]))


WHOLE = Shard()


class Job(NamedTuple):
    """A video to make; the seed is the run's first one plus the number in its name."""

    name: str
    text: str
    seed: int


def jobs(prompts: Sequence[Prompt], samples: int = SAMPLES, seed: int = 0, shard: Shard = WHOLE) -> list[Job]:
    """The videos of a shard. All shards together have each video once.

    Raises:
        ValueError: when there are no samples, or a seed is out of range.
    """
    check_whole("samples", samples, most=1000)
    check_whole("seed", seed, 0, MAX_SEED - samples)
    all_jobs = [Job(f"{p.name}-{i}.mp4", p.text, seed + i) for p in prompts for i in range(samples)]
    return all_jobs[shard.index - 1 :: shard.count]


def manifest(
    maker: Maker, form: Form, files: Mapping[str, Path], samples: int, seed: int, num_prompts: int
) -> dict[str, object]:
    """What decides a run's videos.

    Args:
        files: of prompts, by what they are.
        num_prompts: different texts in them.
    """
    return {
        "format": 1,
        "prompts": {kind: {"name": path.name, "sha256": file_entry(path)[1]} for kind, path in files.items()},
        "num_prompts": num_prompts,
        "settings": {**form._asdict(), "samples": samples, "first_seed": seed},
        "maker": dict(maker.about),
        "code": code_version(),
    }


def sample(
    maker: Maker, todo: Sequence[Job], form: Form, out: Path, about: Mapping[str, object], shard: Shard
) -> int:
    """Make the videos that are not there yet, and return their number.

    Args:
        out: gets `videos/`, and a manifest for each shard.
        about: from `manifest`.

    Raises:
        ValueError: when the folder's videos were made otherwise, or a video is not of the form.
        OSError: when something cannot be written.
    """
    keep_manifest(out, about, f"manifest-{shard.index}-of-{shard.count}.json")
    videos = out / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    missing = [job for job in todo if not _is_there(videos / job.name, form)]
    if len(missing) < len(todo):
        tell(f"{len(todo) - len(missing)} of {len(todo)} videos there already")
    with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as folder:
        for number, job in enumerate(missing, len(todo) - len(missing) + 1):
            tell(f"video {number} of {len(todo)}: {job.name}")
            new = Path(folder) / "video.mp4"
            maker.make(job.text, job.seed, form, new)
            check_video(new, form)
            new.replace(videos / job.name)
    return len(missing)


def check_video(path: Path, form: Form) -> None:
    """Refuse a video of another form.

    Raises:
        ValueError: naming what it is and what it should be.
    """
    import av

    if not path.is_file():
        raise ValueError(f"no video was written to {path.name}; write to the path that {{output}} names")
    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            count = video.frames or sum(1 for _ in container.decode(video))
            found = (count, video.height, video.width, video.average_rate)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise ValueError(f"{path} is no video that can be read: {error}") from error
    if found != (form.num_frames, form.height, form.width, Fraction(form.fps)):
        count, height, width, rate = found
        raise ValueError(
            f"{path} has {count} frames of {height} x {width} at {float(rate or 0):g} fps, "
            f"not {form.num_frames} of {form.height} x {form.width} at {form.fps}"
        )


def _is_there(path: Path, form: Form) -> bool:
    if not path.exists():
        return False
    check_video(path, form)
    return True
