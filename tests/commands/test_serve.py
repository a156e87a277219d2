"""The flags of `pyrf serve`, and the settings that they mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from pyrf import cli
from pyrf.commands.app import app
from pyrf.serve.settings import ServeSettings


def parameters() -> dict[str, Any]:
    command: Any = typer.main.get_command(app)
    return {parameter.opts[0]: parameter for parameter in command.commands["serve"].params}


def test_what_may_be_repeated_and_what_the_environment_says() -> None:
    found = parameters()
    repeated = {"--origin", "--ice-server", "--allowed-host", "--trusted-proxy", "--stream", "--lora"}
    repeated |= {"--allow-output", "--model"}
    assert {name for name, flag in found.items() if flag.multiple} == repeated
    assert {name: flag.envvar for name, flag in found.items() if flag.envvar} == {
        "--model": "PYRF_MODEL",
        "--token": "PYRF_TOKEN",
        "--metrics-token": "PYRF_METRICS_TOKEN",
        "--ice-server": "PYRF_ICE_SERVERS",
    }
    assert all(flag.help for flag in found.values())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (
            ["--max-minutes", "1.5", "--grace", "0", "--max-batch", "2", "--log-prompts"],
            {"max_session_s": 90.0, "grace_s": 0.0, "max_batch": 2, "log_prompts": True},
        ),
        (
            ["--origin", "https://a", "--origin", "https://b", "--ice-server", "stun:c", "--token", "d"],
            {"origins": ("https://a", "https://b"), "ice_servers": ("stun:c",), "token": "d"},
        ),
        (
            ["--max-sessions", "3", "--creates-per-minute", "0.5"],
            {"max_sessions": 3, "creates_per_minute": 0.5},
        ),
    ],
)
def test_what_flags_mean(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: dict[str, Any]
) -> None:
    served: list[ServeSettings] = []
    monkeypatch.setattr("pyrf.serve.server.run", lambda app, settings, sock, **_: served.append(settings))
    assert cli.run(["serve", "--model", str(random_bundle), "--port", "0", *arguments]) == 0
    assert served == [ServeSettings(**expected)]


def test_help_needs_no_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys('torch numpy fastapi starlette uvicorn pyrf.protocol'.split()))\n"
        "from pyrf.cli import run\n"
        "assert run(['serve', '--help']) == 0\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--max-sessions" in result.stdout


def test_with_ray_the_application_is_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    on_ray = pytest.importorskip("pyrf.serve.ray.app", reason="Ray Serve is in the ray extra")
    ran: list[tuple[str, int]] = []

    def run(application: Any, host: str, port: int, started: Any, **_: Any) -> None:
        assert isinstance(application, on_ray.serve.Application)
        ran.append((host, port))

    monkeypatch.setattr(on_ray, "run", run)
    assert cli.run(["serve", "--ray", "--port", "0", "--max-replicas", "2"]) == 0
    ((host, port),) = ran
    assert host == "127.0.0.1"
    assert port > 0


def test_a_limit_of_memory_reaches_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load(model: str, **options: Any) -> None:
        asked.update(options)
        raise ValueError("that is all")

    monkeypatch.setattr("pyrf.loading.decide", load)
    monkeypatch.setattr("pyrf.serve.server.run", lambda make, *_, **__: make(lambda progress: None))
    assert cli.run(["serve", "--port", "0", "--fit", "9GiB"]) == 2
    assert asked["max_memory"] == "9GiB"


def test_threads_are_set_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()

    def load(_: object) -> None:
        raise ValueError(f"loaded with {torch.get_num_threads()} threads")

    monkeypatch.setattr("pyrf.loading.load", load)
    try:
        assert cli.run(["serve", "--port", "0", "--threads", str(threads + 1)]) == 2
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().err == f"error: loaded with {threads + 1} threads\n"
