"""`pyrf eval videos`: folders in, pages and JSON out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="a report needs the eval extra")

from PIL import Image

from pyrf import cli
from pyrf.evaluation.videos import run
from pyrf.evaluation.videos.clip import Clip
from pyrf.evaluation.videos.measures import Chunks, Measured, measure
from pyrf.video.files import Video
from tests.support.spoilt import cut_at_borders, good


def folders(tmp_path: Path) -> list[Path]:
    """Two good videos, and the same cut at the borders of chunks; a name is a piece of HTML."""
    made = [tmp_path / "good", tmp_path / "cut"]
    for folder in made:
        folder.mkdir()
    for seed in range(2):
        name = f"a <b>cat & dog-{seed}.mp4"
        Video(good(seed), 16).save(made[0] / name)
        Video(cut_at_borders(good(seed)), 16).save(made[1] / name)
    return made


def test_a_report_on_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = folders(tmp_path)
    out = tmp_path / "report"
    command = ["eval", "videos", str(first), str(second), "--out", str(out)]
    assert cli.run(command) == 0, capsys.readouterr().err
    told = json.loads((out / "report.json").read_text())
    found = told["differences"][str(second)]["border"]
    assert found["pairs"] == 2
    assert 0.2 < found["low"] <= found["mean"] <= found["high"]
    assert abs(told["differences"][str(second)]["drift"]["mean"]) < 2
    assert "border, ratio" in capsys.readouterr().out
    index = (out / "index.html").read_text()
    pages = re.findall(r'href="(video-\d-\d\.html)"', index)
    assert len(pages) == 4
    assert "a &lt;b&gt;cat &amp; dog-0.mp4" in index
    assert "<b>" not in index
    for page in pages:
        assert "border" in (out / page).read_text()
        with Image.open(out / page.replace("html", "png")) as plot:
            assert np.asarray(plot).std() > 5
    (out / "video-1-7.html").write_text("of a longer report")
    assert cli.run(command) == 0
    assert capsys.readouterr().err.count("measured before") == 4
    assert sorted(page.name for page in out.glob("video-*.html")) == sorted(pages)
    assert json.loads((out / "report.json").read_text()) == told


def test_a_killed_command_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of four videos is a pipe that nobody writes to: the command is killed while it reads it."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for seed in range(4):
        Video(good(seed)[:36], 16).save(folder / f"{seed}.mp4")
    command = ["eval", "videos", str(folder)]
    assert cli.run([*command, "--out", str(tmp_path / "whole")]) == 0, capsys.readouterr().err
    third, aside = folder / "2.mp4", tmp_path / "aside.mp4"
    third.rename(aside)
    os.mkfifo(third)
    out = tmp_path / "report"
    killed = subprocess.Popen(
        [sys.executable, "-m", "pyrf", *command, "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    with killed:
        assert killed.stderr is not None
        assert any("video 2 of 4" in line for line in killed.stderr)
        with third.open("wb"):  # it opens the pipe too: all before it is done
            killed.kill()
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "report.json").exists()
    aside.replace(third)
    measured: list[Clip] = []

    def noted(clip: Clip, chunks: Chunks) -> dict[str, Measured]:
        measured.append(clip)
        return measure(clip, chunks)

    monkeypatch.setattr(run, "measure", noted)
    assert cli.run([*command, "--out", str(out)]) == 0, capsys.readouterr().err
    assert len(measured) == 2
    whole, resumed = ((tmp_path / name / "report.json").read_text() for name in ("whole", "report"))
    assert whole == resumed


def test_only_the_same_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other settings are refused, a changed video is measured again, damage and foreign folders are named."""
    folder, out = tmp_path / "videos", tmp_path / "report"
    folder.mkdir()
    path = Video(good(0)[:48], 16).save(folder / "a.mp4")
    command = ["eval", "videos", str(folder), "--out", str(out), "--json"]
    assert cli.run(command) == 0, capsys.readouterr().err
    before = json.loads(capsys.readouterr().out)["videos"]
    assert cli.run([*command, "--chunk", "9"]) == 2
    assert "another settings chunk (12, now 9)" in capsys.readouterr().err
    Video(good(1)[:48], 16).save(path)
    assert cli.run(command) == 0
    assert json.loads(capsys.readouterr().out)["videos"] != before
    for kept in (out / "measured").iterdir():
        kept.write_text("{")
    assert cli.run(command) == 2
    assert "damaged" in capsys.readouterr().err
    assert cli.run([*command[:-2], str(folder)]) == 2
    assert "no report" in capsys.readouterr().err


def test_constancy_by_a_backbone_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dino")
    still, moving = tmp_path / "still", tmp_path / "moving"
    for folder in (still, moving):
        folder.mkdir()
    Video(np.repeat(good(0)[:1], 48, axis=0), 16).save(still / "a.mp4")
    Video(good(0)[:48], 16).save(moving / "a.mp4")
    command = ["eval", "videos", str(still), str(moving), "--out", str(tmp_path / "out"), "--json"]
    assert cli.run([*command, "--backbone", str(tmp_path / "dino")]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    assert told["means"][str(still)]["constancy"]["mean"] == pytest.approx(1, abs=1e-3)
    assert told["means"][str(moving)]["constancy"]["mean"] < 0.999
    assert told["means"][str(still)]["constancy"]["low"] is None  # of one video there is no interval
    assert cli.run([*command[:-3], "--out", str(tmp_path / "o2"), "--backbone", str(still)]) == 2
    assert f"--backbone {still}" in capsys.readouterr().err


def test_folders_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in (("nowhere", "no such folder"), ("empty", "holds no .mp4 files")):
        assert cli.run(["eval", "videos", str(tmp_path / folder), "--out", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
