"""Receivers of live video that others wrote: nginx with its RTMP module, and the command ffmpeg."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
CONFIG = """load_module {module};
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
rtmp {{ access_log off; server {{ listen 127.0.0.1:{port};
  application live {{ live on; record all; record_path {folder}; record_unique on; }} }} }}
"""
TIMEOUT = 300
"""Seconds for what should come at once; a loaded machine may take long."""


def found(program: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    path = shutil.which(program, path="/usr/local/bin:/usr/bin:/usr/sbin:/bin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def rtmp_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """nginx, ready, which records what it is sent as FLV files in the folder."""
    nginx = found("nginx")
    if not MODULE.exists():
        pytest.skip("nginx has no RTMP module; Debian's is libnginx-mod-rtmp")
    folder.chmod(0o777)  # it writes as another user
    (folder / "nginx.conf").write_text(CONFIG.format(module=MODULE, folder=folder, port=port))
    with subprocess.Popen([nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)]) as process:
        try:
            wait_for_port(port)
            yield process
        finally:
            process.terminate()


@contextmanager
def recorder(address: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command ffmpeg, which waits for a stream at an address and copies it to a file."""
    quick = ["-analyzeduration", "200000", "-fflags", "nobuffer"]  # else it looks at five seconds first
    command = [found("ffmpeg"), "-v", "error", "-y", *quick, "-i", address, "-c", "copy"]
    command += ["-flush_packets", "1", str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            wait_for_datagrams(urlsplit(address).port or 0)
            yield process
        finally:
            process.kill()


def wait_for_datagrams(port: int) -> None:
    """Return once a UDP port of this machine is taken."""
    deadline = time.monotonic() + TIMEOUT
    while f":{port:04X} " not in Path("/proc/net/udp").read_text():
        assert time.monotonic() < deadline, f"nothing takes datagrams on port {port}"


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
