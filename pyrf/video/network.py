"""Live video to a receiver elsewhere: H.264 to an RTMP, RTMPS, SRT or UDP address, in real time."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from pyrf.video.encoder import Encoder
from pyrf.video.encoding import MP4, EncoderSettings, Encoding, highest_rate
from pyrf.video.metadata import Metadata
from pyrf.video.relay import Relay, find_relay, has_srt
from pyrf.video.writer import Frames, FrameWriter

CONTAINERS = {"rtmp": "flv", "rtmps": "flv", "srt": "mpegts", "udp": "mpegts"}
"""What each kind of address carries."""
KEY_FRAMES_S = 2.0
"""Seconds between two frames that a newcomer can begin with; sites ask for that."""
CONNECT_S = 5.0
"""Seconds that a receiver may take for what it is sent, and for a connection."""
RETRIES, RETRY_S = 10, 1
"""How often a lost receiver is tried again, and seconds between two tries."""
QUEUE_S = 4.0
"""Seconds of video that wait for a receiver; then the stream waits too."""
LATE_S = 1.0
"""A stream that is so late goes on from now, and does not hurry after itself."""
PACKET_BYTES = 1316
"""Of MPEG-TS in a datagram."""


class NetworkWriter(FrameWriter):
    """A `Sink` that sends frames as they are due to `rtmp://`, `rtmps://`, `srt://` or `udp://`.

    A receiver that is lost is tried again `RETRIES` times, `RETRY_S` seconds apart, and gets a key frame
    first. Frames of that time that no longer fit into the queue make the stream wait. What has left is not
    taken back. How the video was made is not told: strangers may watch it.

    Args:
        address: where to.
        fps: frames per second.
        encoder: how good or large it is, and who encodes it. Without a bitrate, it has at most that of
            `highest_rate`.

    Raises:
        ValueError: when the address has no host, or fps lies outside of what files can say.
    """

    multiple = 2
    kind = "a live stream"
    _encoder: Encoder | None = None
    _relay: Relay | None = None

    def __init__(
        self,
        address: str,
        fps: float,
        *,
        metadata: Metadata | None = None,
        encoder: EncoderSettings | None = None,
    ) -> None:
        check_address(address)
        super().__init__(shown(address), fps, metadata)
        self._address, self._settings = address, encoder or EncoderSettings()
        self._encoding = self._settings.of(MP4)
        self._start = 0.0

    def _open(self, height: int, width: int) -> None:
        check_receiver(self._address)
        encoding = self._live(height, width)
        encoding = self._settings.on_this_machine(encoding, height, width, self.fps, is_live=True)
        target: Any = _target(self._address)
        if urlsplit(self._address).scheme == "srt" and not has_srt():
            self._relay = Relay(self._address, encoding.container_options)
            target = self._relay.pipe
            encoding = replace(encoding, container="mpegts", container_options={"flush_packets": "1"})
        self._encoder = Encoder(target, encoding, height=height, width=width, fps=self.fps)
        self._start = time.monotonic()

    def _live(self, height: int, width: int) -> Encoding:
        """H.264 that a viewer can join, in a container that finds a lost receiver again."""
        codec = {**self._encoding.codec_options, "tune": "zerolatency"}
        codec["g"] = str(max(1, round(KEY_FRAMES_S * self.fps)))
        if "b" not in codec:
            most = highest_rate(height, width, self.fps)
            codec |= {"maxrate": str(most), "bufsize": str(most)}
        scheme = urlsplit(self._address).scheme
        options = {
            "fifo_format": CONTAINERS[scheme],
            "attempt_recovery": "1",
            "recover_any_error": "1",
            "restart_with_keyframe": "1",
            "max_recovery_attempts": str(RETRIES),
            "recovery_wait_time": str(RETRY_S),
            "queue_size": str(max(8, round(QUEUE_S * self.fps))),
            "format_opts": f"rw_timeout={round(1e6 * CONNECT_S)}"
            + (":flvflags=no_duration_filesize" if CONTAINERS[scheme] == "flv" else ""),
        }
        return replace(self._encoding, container="fifo", codec_options=codec, container_options=options)

    def _append(self, frame: Frames) -> None:
        assert self._encoder is not None  # opened before the first frame
        self._wait_until_due()
        self._send(lambda encoder: encoder.append(frame))

    def _wait_until_due(self) -> None:
        wait = self._start + self.num_frames / self.fps - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        elif wait < -LATE_S:
            self._start -= wait

    def close(self) -> None:
        self._closed = True
        if self._encoder is None:
            raise ValueError(f"no frames were sent to {self.name}")
        self._send(lambda encoder: encoder.finish())
        if self._relay is not None and not self._relay.finish(RETRIES * RETRY_S + CONNECT_S):
            raise self._lost("it did not get all of it")

    def discard(self) -> None:
        """End the stream where it is."""
        self._closed = True
        with suppress(Exception):
            if self._encoder is not None:
                self._encoder.close()
        if self._relay is not None:
            self._relay.stop()

    def _send(self, act: Any) -> None:
        import av

        try:
            act(self._encoder)
        except (av.error.FFmpegError, OSError) as error:
            raise self._lost(error.strerror or str(error)) from error

    def _lost(self, reason: str) -> ValueError:
        return ValueError(
            f"{self.name} takes no more video: {reason}; it was tried {RETRIES} times, so look whether the "
            "receiver runs and takes this name"
        )


def check_address(address: str) -> None:
    """Refuse an address that cannot be sent to, before anything is made for it. Nobody is asked.

    Raises:
        ValueError: when it has no host, no port where one is needed, or another scheme.
    """
    try:
        parts = urlsplit(address)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
    except ValueError as error:
        raise ValueError(f"{shown(address)} is no address: {error}") from None
    if scheme not in CONTAINERS:
        known = ", ".join(f"{name}://" for name in CONTAINERS)
        raise ValueError(f"{shown(address)} is no address that video is sent to; use {known}")
    if not host or (port is None and CONTAINERS[scheme] == "mpegts"):
        form = "rtmp://HOST/APP/KEY" if CONTAINERS[scheme] == "flv" else f"{scheme}://HOST:PORT"
        raise ValueError(f"{shown(address)} names no receiver; write {form}")


def check_receiver(address: str) -> None:
    """Refuse an address whose receiver is not there, where that can be asked: of RTMP.

    Raises:
        ValueError: as `check_address` does, when nothing answers there, or nothing here speaks its protocol.
    """
    check_address(address)
    parts = urlsplit(address)
    if parts.scheme == "srt" and not has_srt():
        find_relay(parts.scheme)
    if CONTAINERS[parts.scheme] != "flv":
        return
    port = parts.port or (443 if parts.scheme == "rtmps" else 1935)
    try:
        with socket.create_connection((str(parts.hostname), port), timeout=CONNECT_S) as connection:
            if parts.scheme == "rtmps":
                ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname).close()
    except OSError as error:
        reason = error.strerror or str(error) or "it did not answer in time"
        raise ValueError(f"no receiver at {shown(address)}: {reason}; start it first") from None


def shown(address: str) -> str:
    """An address for people: what may be a password or a stream's key is left out."""
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return f"{address.partition(':')[0]}://..."
    folder = parts.path.rpartition("/")[0]
    hidden = "/..." if parts.path.strip("/") else ""
    return f"{parts.scheme}://{host}{folder}{hidden}{'?...' if parts.query else ''}"


def _target(address: str) -> str:
    """The address with what FFmpeg must know of datagrams."""
    scheme, query = urlsplit(address).scheme, urlsplit(address).query
    if scheme == "udp" and "pkt_size=" not in query:
        return f"{address}{'&' if query else '?'}pkt_size={PACKET_BYTES}"
    return address
