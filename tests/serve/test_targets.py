"""Where sessions may be sent: nothing that an operator did not name, however the address is written."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.serve.targets import FILES, PORTS, Address, find_target, parse_allowed
from pyrf.video.network import CONTAINERS

RTMP = "rtmp://live.example/app"


def is_sent(target: str, *allowed: str) -> bool:
    try:
        return find_target(target, map(parse_allowed, allowed), None) == target
    except ValueError:
        return False


def test_the_kinds_are_those_that_video_is_sent_to() -> None:
    assert set(PORTS) == set(CONTAINERS)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (f"{RTMP}/key", RTMP),
        (f"{RTMP}/key", f"{RTMP}/"),
        ("rtmp://LIVE.example:1935/app/key?token=1", RTMP),
        (RTMP, RTMP),
        ("rtmps://live.example/any/thing", "rtmps://live.example"),
        ("srt://in.example:9000?streamid=a&passphrase=b", "srt://in.example:9000"),
        ("srt://in.example:9000?mode=listener", "srt://in.example:9000?mode=listener"),
        ("udp://[ff02::1]:5000", "udp://[FF02::1]:5000"),
    ],
)
def test_what_is_allowed(target: str, allowed: str) -> None:
    assert is_sent(target, "rtmp://other.example", allowed)


@pytest.mark.parametrize(
    "target",
    [
        "rtmp://live.example/application/key",
        "rtmp://live.example/ap",
        "rtmp://live.example/",
        "rtmp://live.example:1936/app/key",
        "rtmps://live.example/app/key",
        "rtmp://live.example.evil.example/app/key",
        "rtmp://me@live.example/app/key",
        "rtmp://live.example@evil.example/app/key",
        "rtmp://live.example\\@evil.example/app/key",
        "rtmp://evil.example#@live.example/app/key",
        f"{RTMP}/../admin/key",
        f"{RTMP}/./key",
        f"{RTMP}/%2e%2e/admin",
        f"{RTMP}/key live=1",
        f"{RTMP}/key\n",
        f"{RTMP}/key|udp://evil.example:1",
        "srt://in.example:9000?mode=listener",
        "srt://in.example:9000?streamid=a&localaddr=0.0.0.0",
        "udp://in.example:9000?pkt_size=9000",
        "file:///etc/passwd",
        "http://live.example/app/key",
        "pipe:1",
        f"{RTMP}/{'k' * 2000}",
    ],
)
def test_what_is_not(target: str) -> None:
    assert not is_sent(target, RTMP, "srt://in.example:9000", "udp://in.example:9000")
    assert not is_sent(target)


@given(st.text(st.sampled_from("rtmp:/live.exampap@#?\\%[]:0 \t"), max_size=40))
def test_whatever_is_allowed_goes_to_the_place_that_was_named(rest: str) -> None:
    for target in (f"rtmp://live.example{rest}", f"rtmp://{rest}", f"{RTMP}{rest}"):
        if is_sent(target, RTMP):
            parts = urlsplit(target)
            assert (parts.scheme, parts.hostname, parts.port or 1935) == ("rtmp", "live.example", 1935)
            assert parts.username is None
            assert f"{parts.path}/".startswith("/app/")


@pytest.mark.parametrize("text", ["live.example", "srt://in.example", "udp://in.example", "*", "rtmp://", ""])
def test_what_an_operator_cannot_name(text: str) -> None:
    with pytest.raises(ValueError, match="--allow-output"):
        parse_allowed(text)


def test_files_are_of_one_folder(tmp_path: Path) -> None:
    for suffix in FILES:
        assert find_target(f"my_show-1{suffix}", (), str(tmp_path)) == tmp_path / f"my_show-1{suffix}"
    names = ["../a.mp4", "a/b.mp4", "/tmp/a.mp4", ".a.mp4", "a.mp4\0", "a.txt", "a.m3u8", "camera:", "-", ""]
    for name in [*names, "C:a.mp4", "a\\b.mp4", "a.b.mp4", f"{'a' * 101}.mp4", "a.mp4\n"]:
        with pytest.raises(ValueError, match="a file is named by letters"):
            find_target(name, (), str(tmp_path))
    with pytest.raises(ValueError, match="writes no files"):
        find_target("a.mp4", (), None)


def test_a_key_is_not_told() -> None:
    for target in ("rtmp://evil.example/app/secret", "rtmp://u:secret@live.example/app"):
        with pytest.raises(ValueError, match=r"no such address|no address") as raised:
            find_target(target, [Address.parse(RTMP)], None)
        assert "secret" not in str(raised.value)
