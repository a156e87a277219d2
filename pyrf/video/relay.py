"""The command `ffmpeg` as the last piece of the way to an address that PyAV's own FFmpeg does not know."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from shutil import which
from urllib.parse import urlsplit


@cache
def has_srt() -> bool:
    """Whether PyAV's FFmpeg speaks SRT: that of its wheels does not."""
    import av

    try:
        av.open("srt://127.0.0.1:1?connect_timeout=1").close()
    except av.error.ProtocolNotFoundError:
        return False
    except (av.error.FFmpegError, OSError, ValueError):
        return True
    return True


def find_relay(scheme: str) -> str:
    """The command that speaks a protocol.

    Raises:
        ValueError: when there is none.
    """
    command = which("ffmpeg")
    if command is not None:
        asked = [command, "-hide_banner", "-protocols"]
        known = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        if scheme in known:
            return command
    raise ValueError(
        f"{scheme}:// needs a command ffmpeg that speaks it, as PyAV's own library does not; install it, on "
        "Debian by apt-get install ffmpeg"
    )


class Relay:
    """A process that takes MPEG-TS and sends it on, with the same container that finds receivers again.

    Args:
        address: where to.
        options: of the container `fifo`.

    Attributes:
        pipe: what to write to.

    Raises:
        ValueError: when the command is missing.
    """

    def __init__(self, address: str, options: Mapping[str, str]) -> None:
        command = [find_relay(urlsplit(address).scheme), "-v", "error", "-nostats", "-fflags", "nobuffer"]
        command += ["-analyzeduration", "100000", "-f", "mpegts", "-i", "pipe:0"]
        command += ["-map", "0", "-c", "copy", "-f", "fifo"]
        for name, value in options.items():
            command += [f"-{name}", value]
        self._process = subprocess.Popen(
            [*command, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; it ends when its pipe does
        )
        assert self._process.stdin is not None
        self.pipe = self._process.stdin

    def finish(self, seconds: float) -> bool:
        """Let it send the rest; whether it went well, within so many seconds."""
        try:
            self.pipe.close()
            return self._process.wait(seconds) == 0
        except (OSError, subprocess.TimeoutExpired):
            return False
        finally:
            self.stop()

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
