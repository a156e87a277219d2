"""`~` is the home folder wherever a path is given, and a machine without one is told what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyrf.bundle import BundleError, load_bundle, save_bundle
from pyrf.bundle.hub import has_bundle, has_student
from pyrf.cli import run
from pyrf.evaluation.scores.settings import VideoAlignSettings
from pyrf.export.errors import ExportError
from pyrf.export.store import cache_folder
from pyrf.files import expanded, whole_file, whole_folder
from pyrf.pipeline import StreamingPipeline
from pyrf.training.kinds import load_recipe
from pyrf.training.recipe import RecipeError
from pyrf.training.wan.prompts import read_prompts
from pyrf.video import Video, check_output, open_writer, read_frames
from tests.support import networks
from tests.support.homeless import leave_home

FRAMES = np.zeros((9, 32, 48, 3), np.uint8)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder; the current folder is another, in which nothing may appear."""
    path, here = tmp_path / "home", tmp_path / "here"
    path.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.chdir(here)
    return path


def test_expanded(home: Path) -> None:
    assert expanded("~") == str(home)
    assert expanded("~/a/") == f"{home}/a/"
    assert expanded(Path("~/a")) == f"{home}/a"
    assert expanded("a/~/b") == "a/~/b"
    assert expanded("./~x") == "./~x"
    with pytest.raises(ValueError, match=r"~nobody-of-that-name/x: there is no home folder '~nobody"):
        expanded("~nobody-of-that-name/x")


def test_models_and_students(home: Path) -> None:
    networks.bundle(home / "b")
    weights = dict(networks.dit(seed=1).state_dict())
    torch.save(weights, home / "s.pt")
    loaded = load_bundle("~/b", student="~/s.pt")
    assert (loaded.path, loaded.student) == (home / "b", home / "s.pt")
    assert load_bundle(Path("~/b")).path == home / "b"
    assert load_bundle("~/b", student="~/b").student is not None
    assert has_bundle("~/b")
    assert has_student("~/s.pt")
    saved = save_bundle(
        "~/c",
        transformer=networks.dit(),
        codec=networks.codec(),
        text_encoder=networks.text_encoder(),
        stream_config=networks.STREAM,
        height=32,
        width=48,
    )
    assert saved == home / "c"
    assert saved.is_dir()


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "a/"])
def test_videos(home: Path, name: str) -> None:
    check_output(f"~/{name}")
    saved = Video(FRAMES, 16).save(f"~/{name}")
    assert saved == home / name
    assert saved.exists()
    with open_writer(f"~/b{name}", 16) as writer:
        writer.write(FRAMES)
    assert (home / f"b{name}").exists()
    assert list(Path.cwd().iterdir()) == []


def test_pictures(home: Path) -> None:
    Image.fromarray(FRAMES[0]).save(home / "a.png")
    assert read_frames("~/a.png", height=32, width=48, fps=16).shape == (1, 32, 48, 3)


def test_files_and_folders(home: Path) -> None:
    with whole_file("~/a.txt") as temporary:
        temporary.write_text("x")
    with whole_folder("~/folder"):
        pass
    assert sorted(path.name for path in home.iterdir()) == ["a.txt", "folder"]
    assert list(Path.cwd().iterdir()) == []


def test_caches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYRF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == home / ".cache" / "pyrf"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/x")
    assert cache_folder() == home / "x" / "pyrf"
    monkeypatch.setenv("PYRF_CACHE", "~/y")
    assert cache_folder() == home / "y"


def test_exported_folders(home: Path) -> None:
    networks.bundle(home / "b")
    with pytest.raises(ExportError, match=f"{home}/none"):
        StreamingPipeline.from_pretrained("~/b", backend="onnxruntime", exported="~/none")


def test_recipes(home: Path) -> None:
    (home / "prompts.txt").write_text("a cat\n")
    assert read_prompts("~/prompts.txt") == ["a cat"]
    text = (Path(__file__).parents[1] / "training" / "recipes" / "wan-1.3b-ode.yaml").read_text()
    (home / "r.yaml").write_text(text)
    recipe = load_recipe("~/r.yaml")
    assert load_recipe(str(home / "r.yaml")) == recipe
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe("~/none.yaml")
    settings = VideoAlignSettings(kind="video_align", checkpoint=Path("~/c"), base=Path("~/d"))
    assert (settings.checkpoint, settings.base) == (home / "c", home / "d")


def test_commands(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    networks.bundle(home / "b")
    Image.fromarray(FRAMES[0]).save(home / "a.png")
    made = ["--model=~/b", "--image=~/a.png", "--output=~/o.mp4", "--seconds=1"]
    assert run(["generate", "a red circle", *made]) == 0
    assert run(["export", "~/b", "--out=~/e", "--check=0"]) == 0
    assert run(["train", "tiny", "--out=~/t", "--dry-run"]) == 0
    assert run(["eval", "--model=~/none", "--sheet=~/s.png"]) == 2
    assert {"o.mp4", "e"} <= {path.name for path in home.iterdir()}
    assert list(Path.cwd().iterdir()) == []


# Without a home


def test_without_a_home_what_needs_none_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    networks.bundle(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    leave_home(monkeypatch)
    assert run(["generate", "a red circle", "--model", "./b", "-o", "o.mp4", "--seconds", "1"]) == 0
    assert not (tmp_path / "~").exists()


def test_without_a_home_a_cache_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.bundle(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    leave_home(monkeypatch)
    with pytest.raises(
        ExportError, match=r"no home folder here \(HOME is not set\).*set PYRF_CACHE to a folder"
    ):
        StreamingPipeline.from_pretrained(str(tmp_path / "b"), backend="onnxruntime")
    with pytest.raises(
        BundleError, match=r"no home folder here \(HOME is not set\).*set HF_HOME to a folder"
    ):
        load_bundle("owner/name")
    with pytest.raises(ValueError, match="there is no home folder '~' here"):
        Video(FRAMES, 16).save("~/a.mp4")
    with pytest.raises(ValueError, match="there is no home folder '~' here"):
        load_bundle("~/b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.bundle(tmp_path / "b")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYRF_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ExportError, match=r"cannot write .*: Not a directory; set PYRF_CACHE to a folder that"
    ):
        StreamingPipeline.from_pretrained(str(tmp_path / "b"), backend="onnxruntime")
