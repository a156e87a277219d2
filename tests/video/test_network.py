"""Live outputs, at receivers that others wrote: frames arrive and are looked at, also after a loss."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest

from pyrf.video import check_output, network, open_writer
from pyrf.video.network import check_address, shown
from pyrf.video.writer import Frames, Sink
from tests.support.certificates import write_certificate
from tests.support.receivers import TIMEOUT, free_port, recorder, rtmp_server
from tests.support.tls_front import tls_front

FPS = 50


def steps(count: int, first: int = 0) -> Frames:
    """Frames that tell their number: grey, a level brighter each; 64 x 96."""
    frames = np.zeros((count, 64, 96, 3), np.uint8)
    frames[:] = (20 + first + np.arange(count, dtype=np.uint8))[:, None, None, None]
    return frames


def numbers(path: Path, most: int = 1000) -> list[int]:
    """Which of the frames of `steps` a file shows, `most` of them at most: a live one has no end."""
    seen = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)
        for frame in container.decode(stream):
            seen.append(round(frame.to_ndarray(format="rgb24").mean()) - 20)
            if len(seen) == most:
                break
    return seen


def near(found: list[int], wanted: range) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= 1 for a, b in zip(found, wanted))


def test_rtmp_arrives_whole(tmp_path: Path) -> None:
    port = free_port()
    with rtmp_server(tmp_path, port):
        address = f"rtmp://127.0.0.1:{port}/live/key"
        check_output(address)
        began = time.monotonic()
        with open_writer(address, FPS) as writer:
            writer.write(steps(100))
        assert time.monotonic() - began > 1.9  # in real time, whatever made the frames
        wait_for_recordings(tmp_path, 1)
    (path,) = tmp_path.glob("key-*.flv")
    assert near(numbers(path), range(100))


def test_rtmps_arrives_at_a_certificate_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx behind TLS. Before anything is sent, a certificate that nobody vouches for is refused."""
    port = free_port()
    certificate, key = write_certificate(tmp_path / "tls")
    with rtmp_server(tmp_path, port), tls_front(port, certificate, key) as front:
        address = f"rtmps://localhost:{front}/live/key"
        with pytest.raises(
            ValueError, match=r"no receiver at rtmps://localhost:\d+/live/\.\.\.: .*certificate"
        ):
            check_output(address)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        check_output(address)
        with open_writer(address, FPS) as writer:
            writer.write(steps(60))
        wait_for_recordings(tmp_path, 1)
    (path,) = tmp_path.glob("key-*.flv")
    assert near(numbers(path), range(60))


def test_a_lost_rtmp_server_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "KEY_FRAMES_S", 0.2)
    port = free_port()
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    with rtmp_server(first, port) as server:
        writer = open_writer(f"rtmp://127.0.0.1:{port}/live/key", FPS)
        writer.write(steps(50))
        wait_for_recordings(first, 1)
        server.kill()
        server.wait()
    with rtmp_server(second, port):
        writer.write(steps(150, 50))
        writer.close()
        wait_for_recordings(second, 1)
    found = numbers(next(second.glob("key-*.flv")))
    # What was under way at the loss is lost; the newcomer gets a key frame first, and all after it.
    assert near(found, range(200 - len(found), 200))
    assert 60 < len(found) <= 150


def test_a_receiver_that_stays_away_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RETRIES", 1)
    port = free_port()
    address = f"rtmp://127.0.0.1:{port}/live/secret"
    with pytest.raises(
        ValueError, match=rf"no receiver at rtmp://127\.0\.0\.1:{port}/live/\.\.\.: Connection"
    ):
        check_output(address)
    with socket.create_server(("127.0.0.1", port)):  # it takes connections, and goes
        writer = open_writer(address, FPS)
        writer.write(steps(1))
    with pytest.raises(ValueError, match="takes no more video: Connection re") as raised:
        writer.write(steps(200))
    writer.discard()
    assert "secret" not in str(raised.value)


LISTENING = "?mode=listener"


def end(receiver: subprocess.Popen[bytes], path: Path) -> None:
    """Let a receiver write what it has, once nothing more comes."""
    wait_for_recordings(path.parent, 1, path.name)
    receiver.kill()
    receiver.wait(TIMEOUT)


def test_srt_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "KEY_FRAMES_S", 0.2)
    address = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with recorder(address + LISTENING, tmp_path / "a.ts") as receiver:
        with open_writer(address, FPS) as writer:
            writer.write(steps(150))
        end(receiver, tmp_path / "a.ts")
    found = numbers(tmp_path / "a.ts")
    # The first wait for the receiver to look at them, the last are lost as SRT closes.
    assert near(found, range(found[0], found[0] + len(found)))
    assert len(found) > 60


@pytest.mark.slow  # SRT takes five seconds to notice that nobody answers
def test_a_lost_srt_listener_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "KEY_FRAMES_S", 0.5)
    address = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with recorder(address + LISTENING, tmp_path / "1.ts") as receiver:
        writer = open_writer(address, 16)
        writer.write(steps(32))
        receiver.kill()
        receiver.wait()
    with recorder(address + LISTENING, tmp_path / "2.ts") as receiver:
        writer.write(steps(190, 32))
        writer.close()
        end(receiver, tmp_path / "2.ts")
    found = numbers(tmp_path / "2.ts")
    assert near(found, range(found[0], found[0] + len(found)))
    assert found[-1] > 200
    assert 30 < len(found) < 180


def test_udp_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "KEY_FRAMES_S", 0.2)
    port = free_port(socket.SOCK_DGRAM)
    with recorder(f"udp://127.0.0.1:{port}", tmp_path / "a.ts") as receiver:
        with open_writer(f"udp://127.0.0.1:{port}", FPS) as writer:
            writer.write(steps(150))
        end(receiver, tmp_path / "a.ts")
    found = numbers(tmp_path / "a.ts")
    assert near(found, range(found[0], found[0] + len(found)))  # no one asks whether datagrams arrive
    assert len(found) > 60


def wait_for_recordings(folder: Path, count: int, names: str = "*.flv") -> None:
    """Return once a receiver has begun so many files and they no longer grow."""
    deadline = time.monotonic() + TIMEOUT
    sizes: list[int] = []
    while time.monotonic() < deadline:
        before, sizes = sizes, [path.stat().st_size for path in folder.glob(names)]
        if len(sizes) >= count and min(sizes) > 100 and sizes == before:
            return
        time.sleep(0.3)
    raise AssertionError(f"{folder} has {sizes}")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("rtmp:///live/key", "names no receiver; write rtmp://HOST/APP/KEY"),
        ("srt://host", "names no receiver; write srt://HOST:PORT"),
        ("udp://host:99999", "is no address: Port out of range"),
        ("http://host:1", "use rtmp://, rtmps://, srt://, udp://"),
    ],
)
def test_addresses_that_are_none(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_address(address)


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("rtmp://user:word@live.example/app/key", "rtmp://live.example/app/..."),
        ("srt://h:9000?streamid=key&passphrase=word", "srt://h:9000?..."),
        ("udp://h:1", "udp://h:1"),
    ],
)
def test_what_is_secret_in_an_address_is_never_told(address: str, seen: str) -> None:
    assert shown(address) == seen


def test_hls_plays_while_it_grows_and_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "live" / "show.m3u8"
    with open_writer(path, 10) as writer:
        writer.write(steps(60))
        assert "#EXT-X-ENDLIST" not in path.read_text()
        growing = numbers(path, most=30)
        writer.write(steps(15, 60))
    assert near(growing, range(30))
    text = path.read_text()
    assert text.count("#EXTINF:2.0") == 3
    assert text.rstrip().endswith("#EXT-X-ENDLIST")
    assert near(numbers(path), range(75))
    with pytest.raises(ValueError, match="there is such a playlist; name a new one"):
        open_writer(path, 10)


def stop_after(writer: Sink, frames: Frames) -> None:
    with writer:
        writer.write(frames)
        raise KeyboardInterrupt


def test_a_stopped_hls_is_kept_or_goes(tmp_path: Path) -> None:
    for keep in (True, False):
        path = tmp_path / str(keep) / "a.m3u8"
        with pytest.raises(KeyboardInterrupt):
            stop_after(open_writer(path, 10, keep_partial=keep), steps(30))
        assert path.exists() is keep
    assert near(numbers(tmp_path / "True" / "a.m3u8"), range(30))
    assert not (tmp_path / "False").exists()
