"""The script for a GPU: steps that fail, hang or have no time stop no other, and a rehearsal on a CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType

import psutil
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def on_gpu() -> Iterator[ModuleType]:
    spec = util.spec_from_file_location("on_gpu", FOLDER / "on_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["on_gpu"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["on_gpu"]


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_what_goes_wrong_stops_no_other_step(on_gpu: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    forks = "import os, signal; os.fork(); signal.pause()"
    reads = f"import json; print(json.dumps(list(json.load(open({str(results)!r}))['steps'])))"
    todo = [
        on_gpu.Step("fails", python("print('{\"half\": 1}'); raise SystemExit(3)"), 20),
        on_gpu.Step("hangs", python("import signal; signal.pause()"), 0.3),
        on_gpu.Step("hangs with a child", python(forks), 0.5),
        on_gpu.Step("is not there", ["/no/such/program"], 20),
        on_gpu.Step("fp8", python("1"), 20, "no fp8"),
        on_gpu.Step("reads", python(reads), 20),
        on_gpu.Step(
            "counts", python("print('first'); print('{\"end_to_end_fps\": 2.0}'); print('last')"), 20
        ),
    ]
    found = on_gpu.run_all(todo, tmp_path, 60.0, {"when": "now"})["steps"]
    assert {name: step["state"] for name, step in found.items()} == {
        "fails": "failed",
        "hangs": "over time",
        "hangs with a child": "over time",
        "is not there": "failed",
        "fp8": "not in this build",
        "reads": "ok",
        "counts": "ok",
    }
    assert found["fails"]["figures"] == {"half": 1}
    assert "exit code 3" in found["fails"]["note"]
    assert found["reads"]["note"] == json.dumps(list(found)[:5])  # results are there after every step
    assert found["counts"]["figures"] == {"end_to_end_fps": 2.0}
    assert json.loads(results.read_text())["steps"] == found


def test_a_step_that_ignores_the_end_is_killed_with_its_children(
    on_gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_gpu, "KILLED_AFTER_S", 0.2)
    # A shell has begun long before its second is over, on a loaded machine too. It leads its group.
    stubborn = f"trap '' TERM; echo $$ > {tmp_path}/group; sleep 600 & wait"
    step = on_gpu.Step("stubborn", ["/bin/sh", "-c", stubborn], 1.0)
    outcome = on_gpu.run(step, tmp_path / "log", 60.0)
    assert outcome.state == "over time"
    assert "by force" in outcome.note
    group = int((tmp_path / "group").read_text())
    assert not [p for p in psutil.process_iter() if group_of(p) == group and p.status() != "zombie"]


def group_of(process: psutil.Process) -> int | None:
    """None where the process has ended meanwhile."""
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def test_the_budget_is_the_whole_s(on_gpu: ModuleType, tmp_path: Path) -> None:
    todo = [
        on_gpu.Step("first", python("import signal; signal.pause()"), 20),
        on_gpu.Step("second", python("1"), 20),
    ]
    found = on_gpu.run_all(todo, tmp_path, 0.3, {})["steps"]
    assert [step["state"] for step in found.values()] == ["over time", "no time left"]


def test_the_rival_is_compared_on_a_gpu_only(on_gpu: ModuleType) -> None:
    outcome = on_gpu.Outcome("ok", 1.0, {"chunk_p50_ms": 172.0, "end_to_end_fps": 70.0})
    assert "2.00 x as fast" in on_gpu.compared("fps taehv window 21 bfloat16", outcome)
    assert on_gpu.compared("fps taehv window 21 float32", outcome) == "70.0 FPS end to end"


def test_steps_begin_with_what_is_worth_most(on_gpu: ModuleType, tmp_path: Path) -> None:
    names = [step.name for step in on_gpu.steps(tmp_path, rehearse=False)]
    order = ["gpu tests", "bundle taehv", "fps taehv window 21 bfloat16", "kernels", "serve load", "compile"]
    assert [name for name in names if name in order] == order
    assert {step.name for step in on_gpu.steps(tmp_path, rehearse=True)} >= {"gpu tests", "peak wan"}
    (tmp_path / "bundles" / "taehv").mkdir(parents=True)
    assert "bundle taehv" not in [step.name for step in on_gpu.steps(tmp_path, rehearse=True)]


def rehearse(out: Path, *options: str) -> dict[str, dict[str, object]]:
    command = [str(FOLDER / "on_gpu.sh"), "--rehearse", "--out", str(out), *options]
    ran = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    steps: dict[str, dict[str, object]] = json.loads((out / "results.json").read_text())["steps"]
    return steps


def test_a_short_rehearsal(tmp_path: Path) -> None:
    found = rehearse(tmp_path, "--only", "bundle taehv", "fps taehv window 9 float32")
    assert [step["state"] for step in found.values()] == ["ok"] * 2
    figures = found["fps taehv window 9 float32"]["figures"]
    assert isinstance(figures, dict)
    assert figures["method"]["window_frames"] == 9


@pytest.mark.slow
def test_the_whole_rehearsal(tmp_path: Path) -> None:
    states = {name: step["state"] for name, step in rehearse(tmp_path).items()}
    assert set(states.values()) <= {"ok", "not in this build"}
    assert states["serve load"] == states["peak wan"] == states["fps wan window 21 float32"] == "ok"
