"""`--stream` of every command that has it: what is made, what is said of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pyrf import cli
from pyrf.bundle import Bundle
from pyrf.bundle.stream_choice import StreamChoice
from pyrf.config import StreamConfig
from pyrf.evaluation import held_out
from pyrf.export.manifest import load_manifest
from pyrf.export.targets import TARGETS
from pyrf.reports import roofline_table

PROMPT = "a red circle moves right"
ONE = ["--stream", "chunk_frames=1", "--stream", "window=3", "--stream", "sink=1", "--stream", "steps=1000"]


def test_generate(tmp_path: Path, random_bundle: Path) -> None:
    """The file says how it was made."""
    settings = tmp_path / "mine.yaml"
    settings.write_text("chunk_frames: 1\nwindow: none\nsink: 0\nsteps: [1000, 500]\nsampler: unipc\n")
    out = tmp_path / "out.png"
    options = ["--seconds", "0.4", "--model", str(random_bundle), "--stream", str(settings)]
    assert cli.run(["generate", PROMPT, "-o", str(out), *options, "--stream", "window=4"]) == 0
    with Image.open(out) as picture:
        made = json.loads(str(picture.info["Comment"]))
    assert made["stream"] == {
        "chunk_frames": 1,
        "window_frames": 4,
        "sink_frames": 0,
        "denoising_steps": [1000, 500],
        "sampler": "unipc",
    }


def test_bench(random_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(random_bundle), "--chunks=3", "--repeats=1", "--warm-up=0"]
    assert cli.run(["bench", *options, *ONE, "--stream", "sampler=unipc"]) == 0
    assert (
        "chunk 1 latent frames, window 3, 2 network calls per chunk, unipc, batch 1"
        in capsys.readouterr().out
    )
    assert cli.run(["bench", *options, "--stream=self-forcing", "--json"]) == 0
    method = json.loads(capsys.readouterr().out)["method"]
    assert (method["preset"], method["sampler"], method["window_frames"]) == ("self-forcing", "renoise", 21)


def test_roofline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of one latent frame has a third of the tokens; the cache is as large as the window."""

    def no_compiler(_: str) -> None:
        raise RuntimeError("compiling takes its time")

    monkeypatch.setattr(roofline_table, "resources", no_compiler)
    found = []
    for name in ("reward-forcing", "causal-forcing-framewise"):
        assert cli.run(["bench", "--roofline", "--json", "--stream", name]) == 0
        found.append(json.loads(capsys.readouterr().out)["models"][0])
    assert [floor["tokens"] for floor in found] == [4680, 1560]
    assert [floor["window_tokens"] for floor in found] == [9 * 1560, 21 * 1560]


@pytest.mark.slow
def test_export(
    tmp_path: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export is for chunks of one length and one window; steps, shift and sampler are free."""
    monkeypatch.setenv("PYRF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "export"
    assert cli.run(["export", str(random_bundle), "--out", str(folder), "--check", "0", *ONE]) == 0
    assert load_manifest(folder).stream.chunk_frames == 1
    graphs = ["--backend", "onnxruntime", "--exported", str(folder), "--model", str(random_bundle)]
    order = ["generate", PROMPT, "-o", str(tmp_path / "out.png"), "--seconds", "0.3", *graphs]
    assert cli.run([*order, *ONE, "--stream", "steps=1000,500", "--stream", "sampler=unipc"]) == 0
    capsys.readouterr()
    assert cli.run(order) == 2
    assert "was exported from another stream" in capsys.readouterr().err


def test_export_as_asked(tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the minutes of the test above: what is given to whoever exports."""
    exported: list[Bundle] = []

    def write(bundle: Bundle, *_: Any) -> list[str]:
        exported.append(bundle)
        return []

    monkeypatch.setitem(TARGETS, "onnx", write)
    assert cli.run(["export", str(random_bundle), "--out", str(tmp_path / "export"), "--check=0", *ONE]) == 0
    assert exported[0].stream_config == StreamConfig(1, 3, 1, denoising_steps=(1000,))


def test_eval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def load(model: str, **options: Any) -> None:
        asked.append(options["stream"])
        raise ValueError("enough")

    monkeypatch.setattr(held_out, "load_bundle", load)
    assert cli.run(["eval", "--sheet", str(tmp_path / "a.png"), *ONE]) == 2
    assert cli.run(["eval", "world", "--out", str(tmp_path / "report"), "--stream", "self-forcing"]) == 2
    one = {"chunk_frames": 1, "window_frames": 3, "sink_frames": 1, "denoising_steps": (1000,)}
    assert asked == [StreamChoice(own=one), StreamChoice("self-forcing")]


@pytest.mark.parametrize(
    "command",
    [
        ["generate", PROMPT, "-o", "{out}.mp4"],
        ["bench"],
        ["export", "tiny", "--out", "{out}"],
        ["serve", "--port", "0"],
        ["eval", "--sheet", "{out}.png"],
        ["eval", "world", "--out", "{out}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    told = [word.format(out=tmp_path / "out") for word in command]
    assert cli.run([*told, "--stream", "speed=3"]) == 2
    assert "stream: no setting 'speed'; there are chunk_frames" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_preset_of_other_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bundled model says how it was trained."""
    order = ["generate", PROMPT, "-o", str(tmp_path / "out.mp4"), "--model", "tiny"]
    assert cli.run([*order, "--stream", "causal-forcing-framewise"]) == 2
    assert "says chunk_frames 3, and stream causal-forcing-framewise has 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
