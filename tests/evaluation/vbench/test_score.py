"""`pyrf eval vbench score` and `vbench-long`: VBench in its own environment, its results, clips and drift."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pyrf import cli
from pyrf.evaluation.vbench.clips import by_video, cut, drift, long_scores
from pyrf.evaluation.vbench.results import Result, read_results
from pyrf.evaluation.vbench.score import check_complete
from tests.support.vbench import stand_in, write_info, write_video


def test_vbench_scores_in_its_own_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info, python, videos, out = (
        write_info(tmp_path),
        stand_in(tmp_path),
        tmp_path / "videos",
        tmp_path / "out",
    )
    videos.mkdir()
    for name in ("a cat runs", "two dogs"):
        for i in range(5):
            write_video(videos / f"{name}-{i}.mp4", 2, 16, 16, 16)
    command = ["eval", "vbench", "score", str(videos), "--out", str(out), "--python", str(python)]
    command += ["--info", str(info), "--device", "cpu"]
    assert cli.run([*command, "--dimension", "imaging_quality"]) == 0, capsys.readouterr().err
    assert cli.run([*command, "--dimension", "imaging_quality", "--dimension", "multiple_objects"]) == 0
    assert "imaging_quality: scored before" in capsys.readouterr().err
    assert cli.run(["eval", "vbench", "total", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scores"] == {
        "imaging_quality": pytest.approx(0.705),
        "multiple_objects": pytest.approx(0.705),
    }
    assert told["totals"] == {}
    assert len(told["missing"]) == 14
    assert cli.run([*command, "--dimension", "color"]) == 2
    assert "lacks 5 of the 5 videos of color, such as 'a red car-0.mp4'" in capsys.readouterr().err


def test_a_failure_of_vbench_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info, python, videos = write_info(tmp_path), stand_in(tmp_path), tmp_path / "videos"
    videos.mkdir()
    for i in range(5):
        write_video(videos / f"a red car-{i}.mp4", 2, 16, 16, 16)
    command = ["eval", "vbench", "score", str(videos), "--out", str(tmp_path / "out"), "--info", str(info)]
    command += ["--device", "cpu", "--dimension", "color", "--python"]
    assert cli.run([*command, str(python)]) == 2
    assert "did not score color: CUDA out of memory" in capsys.readouterr().err
    python.write_text(f'#!/bin/sh\nPYTHONPATH= exec "{sys.executable}" -S "$@"\n')  # without any package
    assert cli.run([*command, str(python)]) == 2
    assert "did not score color" in capsys.readouterr().err
    (videos / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"\.mp4 files alone.*notes\.txt"):
        check_complete(videos, info, ["color"])


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x_eval_results.json"
    with pytest.raises(ValueError, match="no results in"):
        read_results([tmp_path])
    for content in ("[]", '{"color": ["high", []]}', '{"colour": [0.5, []]}', '{"color": [NaN, []]}', "{"):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"not what VBench writes|no dimension"):
            read_results([tmp_path])
    file.write_text(
        '{"color": [0.5, []], "human_action": [1.0, [{"video_path": "a", "video_results": true}]]}'
    )
    assert read_results([file])["human_action"] == Result(1.0, (("a", 1.0),))
    with pytest.raises(ValueError, match="in another file too"):
        read_results([file, file])


def clips(values: dict[str, list[float]]) -> Result:
    pairs = [(f"/x/{v} clip{i:03}.mp4", value) for v, all_ in values.items() for i, value in enumerate(all_)]
    return Result(0.0, tuple(reversed(pairs)))


def test_drift_by_hand() -> None:
    """30 clips that fall from 70 to 60 in one step: deviation 5, ends 10."""
    falls, flat = [70.0] * 15 + [60.0] * 15, [50.0] * 30
    assert drift(clips({"falls-0": falls})) == pytest.approx((5, 10))
    assert drift(clips({"falls-0": falls, "flat-0": flat})) == pytest.approx((2.5, 5))
    rising = list(np.arange(10.0))
    assert drift(clips({"r-0": rising})).ends == pytest.approx((9 * 2 + 8 * 2 + 7) / 5 - (0 + 2 + 2) / 5)
    with pytest.raises(ValueError, match="10 s at least, and it has 8 s"):
        drift(clips({"short-0": [1.0] * 4}))


def test_videos_count_alike_however_many_clips_they_have() -> None:
    result = clips({"a-0": [80.0, 60.0], "b-0": [50.0]})
    assert long_scores({"imaging_quality": result}) == {"imaging_quality": pytest.approx(0.6)}
    assert by_video(result)["a-0"] == [80.0, 60.0]
    with pytest.raises(ValueError, match="of 2 clips only 1"):
        by_video(Result(0.0, (("/x/a-0 clip001.mp4", 1.0),)))


def test_long_videos_from_clips_to_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info, python, videos, out = (
        write_info(tmp_path),
        stand_in(tmp_path),
        tmp_path / "videos",
        tmp_path / "out",
    )
    videos.mkdir()
    write_video(videos / "a [cat]-0.mp4", 21 * 4 + 3, 16, 16, 4)
    command = ["eval", "vbench-long", "score", str(videos), "--out", str(out), "--python", str(python)]
    command += ["--info", str(info), "--device", "cpu", "--dimension", "imaging_quality"]
    assert cli.run(command) == 0, capsys.readouterr().err
    made = sorted(path.name for path in (out / "clips").iterdir())
    assert made == [f"a [cat]-0 clip{i:03}.mp4" for i in range(10)]  # the last 1.75 s are dropped
    assert cut([videos / "a [cat]-0.mp4"], out / "clips") == 10
    assert cli.run(["eval", "vbench-long", "total", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["scores"] == {"imaging_quality": pytest.approx(0.705)}
    assert told["drift"] == {"deviation": pytest.approx(0.5), "ends": pytest.approx(0.2)}
    assert cli.run(["eval", "vbench-long", "total", str(out)]) == 0
    assert "drift, deviation over clips | 0.500 | 2.505" in capsys.readouterr().out
