"""Start, ask and stop what deploy/install.sh installed, as deploy/Dockerfile says: `image_works.py FOLDER`.

Only the standard library is used, by the Python of the image. What is wrong ends it with a traceback.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAST_STAGE = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ").split("\nFROM ")[-1]
HEALTHY_S, STOP_S = 600.0, 60.0
"""Seconds to become healthy and ready, and to stop; CI has less of a machine than the image."""


def instruction(name: str) -> str:
    """What stands behind an instruction of the last stage, which has it once."""
    (found,) = re.findall(rf"^{name} (.+)$", LAST_STAGE, re.MULTILINE)
    return str(found)


def environment(folder: Path, home: Path, port: int) -> dict[str, str]:
    """The image's variables, for a folder, home and port of this machine; none of pyrf's from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYRF_", "PYTHON"))}
    for pair in shlex.split(instruction("ENV")):
        name, _, value = pair.partition("=")
        kept[name] = value.replace("/opt/pyrf", str(folder)).replace("$PATH", os.environ["PATH"])
    return {**kept, "HOME": str(home), "PYRF_SERVE_PORT": str(port), "PYRF_TOKEN": secrets.token_urlsafe()}


def wait_for(check: list[str], env: dict[str, str], server: subprocess.Popen[bytes], what: str) -> None:
    """Return once a command succeeds; its last words are shown when it does not in time.

    Raises:
        SystemExit: when it does not, or the server has ended.
    """
    deadline = time.monotonic() + HEALTHY_S
    while True:
        asked = subprocess.run(check, env=env, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return
        if server.poll() is not None:
            raise SystemExit(f"the server ended with status {server.returncode} before it was {what}")
        if time.monotonic() > deadline:
            raise SystemExit(f"the server is not {what} after {HEALTHY_S:.0f} s:\n{asked.stderr}")
        time.sleep(1)


def main(folder: Path) -> None:
    """Raises SystemExit when the server does not start, is not healthy, or does not end with status 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = json.loads(instruction("ENTRYPOINT")) + json.loads(LAST_STAGE.rpartition("\nCMD ")[2])
    health = json.loads(instruction(r"HEALTHCHECK[^\[]*CMD"))
    health = [word.replace(":8000/", f":{port}/") for word in health]
    ready = [word.replace("/health/live", "/health/ready") for word in health]
    assert health != ready, "the healthcheck does not ask /health/live"
    with tempfile.TemporaryDirectory() as home:
        env = environment(folder, Path(home), port)
        program = folder / "bin" / start[0]
        command = [str(program), *start[1:], "--config", str(ROOT / "deploy" / "server.yaml")]
        server = subprocess.Popen(command, env=env, cwd=home, stdin=subprocess.DEVNULL)
        try:
            wait_for(health, env, server, "healthy")
            wait_for(ready, env, server, "ready")
            server.send_signal(signal.SIGTERM)
            status = server.wait(STOP_S)
        finally:
            server.kill()
            server.wait()
    if status != 0:
        raise SystemExit(f"SIGTERM ended the server with status {status}, expected 0")
    print("the image's server started, was healthy and ready, and stopped with status 0")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
