"""Nothing that pyrf uses reports about its users, or leaves something in their home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyrf.telemetry import SWITCHES

WORK = """
import sys
from pathlib import Path
from pyrf.cli import run

bundle, out = sys.argv[1:]
assert run(["generate", "a red circle", "-o", f"{out}/torch.mp4", "--seconds", "0.5", "--model", bundle]) == 0
exported = f"{out}/onnx"
assert run(["export", bundle, "--out", exported, "--check", "1"]) == 0
arguments = ["generate", "a red circle", "-o", f"{out}/onnx.mp4", "--seconds", "0.5", "--model", bundle]
assert run([*arguments, "--backend", "onnxruntime", "--exported", exported]) == 0

from fastapi.testclient import TestClient
from pyrf import StreamingPipeline
from pyrf.serve.app import create_app
from pyrf.serve.settings import ServeSettings

pipe = StreamingPipeline.from_pretrained(bundle)
with TestClient(create_app(lambda: pipe, model="it", settings=ServeSettings()), "http://127.0.0.1") as client:
    client.get("/docs")
    client.post("/v1/sessions", json={"prompt": "a red circle"})
print("done")
"""


def test_the_home_folder_stays_empty(random_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    out.mkdir()
    hidden = (*SWITCHES, "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "HF_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(random_bundle), str(out)],
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
    assert sorted(home.rglob("*")) == []


def test_what_the_user_has_said_stays() -> None:
    code = f"import os, pyrf; print([os.environ[name] for name in {list(SWITCHES)}])"
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment | more, capture_output=True, text=True, check=True
        ).stdout.strip()
        for more in ({}, {"ORT_DISABLE_TELEMETRY": "0"})
    ]
    assert told == ["['1', '1', '0']", "['1', '0', '0']"]
