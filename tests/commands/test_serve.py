"""The flags of `pyrf serve`, and the settings that they mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from pyrf import cli
from pyrf.commands.app import app
from pyrf.serve.settings import ServeSettings

FLAGS = {
    "--host": ("127.0.0.1", "Address to listen on."),
    "--port": (8000, "Port to listen on; 0 takes a free one."),
    "--model": ("tiny", "A bundled model, a model directory, or a hub id."),
    "--student": (None, "Student weights over the model's, a file or a hub id."),
    "--dtype": ("float32", "float32 or bfloat16; for tensorrt also float16."),
    "--device": ("cpu", "cpu, cuda, cuda:1, ..."),
    "--backend": ("torch", "Who computes: torch, onnxruntime on a CPU, or tensorrt on a GPU."),
    "--window": (None, "Latent frames that a chunk sees, itself included; by default the model's."),
    "--token": (None, "What clients must know to begin a session."),
    "--insecure": (False, "Let other machines in without a token."),
    "--origin": (None, "Web origin whose pages may use the server too; may be repeated."),
    "--ice-server": (None, "stun:HOST or turn:USER:PASSWORD@HOST, for WebRTC; may be repeated."),
    "--max-sessions": (16, "Sessions and clips at a time."),
    "--max-batch": (4, "Sessions computed in one call."),
    "--max-minutes": (60.0, "Longest life of a session."),
    "--grace": (30.0, "Seconds a session outlives its viewer."),
    "--creates-per-minute": (60.0, "Sessions one address may begin."),
    "--threads": (None, "CPU threads; by default torch's choice."),
    "--ray": (False, "Serve from replicas on Ray Serve; limits are those of a replica."),
    "--replicas": (1, "With --ray: replicas at least."),
    "--max-replicas": (None, "With --ray: replicas at most, as sessions need them."),
    "--log-level": ("info", "debug, info, warning or error."),
    "--log-prompts": (False, "Write prompts to the log."),
}


def parameters() -> dict[str, Any]:
    command: Any = typer.main.get_command(app)
    return {parameter.opts[0]: parameter for parameter in command.commands["serve"].params}


def test_flags_defaults_and_help() -> None:
    found = parameters()
    assert {name: (flag.default, flag.help) for name, flag in found.items()} == FLAGS
    assert {name for name, flag in found.items() if flag.multiple} == {"--origin", "--ice-server"}
    assert {name for name, flag in found.items() if flag.envvar} == {"--token"}
    assert found["--token"].envvar == "PYRF_TOKEN"
    assert {name for name, flag in found.items() if flag.is_flag} == {"--insecure", "--ray", "--log-prompts"}


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

    def run(application: Any, host: str, port: int, started: Any) -> None:
        assert isinstance(application, on_ray.serve.Application)
        ran.append((host, port))

    monkeypatch.setattr(on_ray, "run", run)
    assert cli.run(["serve", "--ray", "--port", "0", "--max-replicas", "2"]) == 0
    ((host, port),) = ran
    assert host == "127.0.0.1"
    assert port > 0
