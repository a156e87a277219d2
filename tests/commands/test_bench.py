"""`pyrf bench`: what it prints, and options that it refuses."""

import json
from pathlib import Path

import pytest

from pyrf import cli
from pyrf.pipeline import StreamingPipeline
from tests.support.command_line import call
from tests.support.random_bundle import HEIGHT, WIDTH


def test_bench_prints_one_json_object(random_bundle: Path) -> None:
    options = ["--chunks", "3", "--repeats", "2", "--warm-up", "1", "--threads", "1", "--json"]
    options += ["--precision", "fp8-attention"]
    result = call("bench", "--model", random_bundle, *options)
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["method"]["threads"] == 1
    assert values["method"]["chunks"] == 3
    assert values["method"]["dtype"] == "float32"
    assert values["method"]["precision"] == "fp8-attention"
    assert values["method"]["codec"] == "TAEHVCodec"
    assert values["denoise_fps"] > values["end_to_end_fps"] > 0
    assert values["chunk_p99_ms"] >= values["chunk_p50_ms"] > 0
    assert values["first_frame_ms"] > 0
    assert values["peak_rss_mib"] > 50


def test_bench_states_its_method(random_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "--model", str(random_bundle), "--seconds=1", "--repeats=1", "--warm-up=0"]) == 0
    out = capsys.readouterr().out
    for words in (
        f"model {random_bundle}, float32, {HEIGHT} x {WIDTH} at 16 fps",
        "window 9",
        "warm-up 0 chunks, then 1 stream of 2 chunks",
        "end to end",
        "denoise only",
    ):
        assert words in out
    assert "student" not in out


def test_bench_names_student_and_export(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    monkeypatch.setattr(StreamingPipeline, "from_pretrained", lambda *_, **__: pipe)
    options = ["--student=mine.pt", "--exported=graphs", "--chunks=2", "--repeats=1", "--warm-up=0"]
    assert cli.run(["bench", *options]) == 0
    out = capsys.readouterr().out
    assert "model tiny with student mine.pt, " in out
    assert "backend torch on graphs" in out
    assert cli.run(["bench", *options, "--json"]) == 0
    method = json.loads(capsys.readouterr().out)["method"]
    assert (method["student"], method["exported"]) == ("mine.pt", "graphs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunks=1"], "chunks must be at least 2"),
        (["--repeats=0"], "repeats must be at least 1"),
        (["--warm-up=-1"], "warm-up must be at least 0"),
        (["--threads=0"], "--threads must lie in 1..1024, got 0"),
        (["--threads=1000000000000"], "--threads must lie in 1..1024, got 1000000000000"),
        (["--seconds=-1"], "--seconds must be a positive number"),
        (["--seconds=1e308"], "--seconds must be a positive number up to 1000000, got 1e+308"),
        (["--seconds=0.5625"], "--seconds must reach beyond the first chunk, which lasts 0.5625 seconds"),
        (["--seconds=1", "--chunks=4"], "--chunks or --seconds, not both"),
    ],
)
def test_bad_bench_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", *options]) == 2
    assert message in capsys.readouterr().err
