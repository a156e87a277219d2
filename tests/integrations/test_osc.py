"""OSC messages, sent by python-osc over a real socket, and what they ask of a stream."""

from __future__ import annotations

import logging
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pythonosc")

from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.udp_client import SimpleUDPClient

from pyrf.integrations.osc import MAX_DATAGRAM_BYTES, READERS, ROOT, OscListener, Steering
from pyrf.pipeline import StreamingPipeline
from tests.support.receivers import free_port

PROMPT, BLUE = "a red circle", "a blue square"


class Heard:
    """A listener, a sender, and what was complained of."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.osc = OscListener(0, adapters=["ink", "a/b"], complain=self.complaints.append)
        self.sender = SimpleUDPClient(*self.osc.address)

    def after(self, *messages: tuple[str, Any]) -> Steering:
        """What is asked for after these messages: UDP on one machine keeps their order."""
        for address, arguments in messages:
            self.sender.send_message(address, arguments)
        return self.settled()

    def settled(self) -> Steering:
        """What is asked for once all that was sent is read; the mark itself is left out."""
        self._mark = getattr(self, "_mark", 1000) + 1
        self.sender.send_message("/pyrf/seed", self._mark)
        asked = Steering()
        while asked.seed != self._mark:
            self.osc.wait()
            if (more := self.osc.take()).seed is not None:
                asked.seed = more.seed
            asked.prompt = more.prompt or asked.prompt
            asked.adapters |= more.adapters
            asked.paused = asked.paused if more.paused is None else more.paused
            asked.stop |= more.stop
        asked.seed = None
        return asked


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard()
    with heard.osc:
        yield heard


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        (("/pyrf/prompt", BLUE), Steering(prompt=(BLUE, 0.0))),
        (("/pyrf/prompt", [BLUE, 2.5]), Steering(prompt=(BLUE, 2.5))),
        (("/pyrf/prompt", ["ein grüner Kreis", 1]), Steering(prompt=("ein grüner Kreis", 1.0))),
        (("/pyrf/adapter/ink", 0.5), Steering(adapters={"ink": 0.5})),
        (("/pyrf/adapter/a/b", -1), Steering(adapters={"a/b": -1.0})),
        (("/pyrf/pause", []), Steering(paused=True)),
        (("/pyrf/pause", 1.0), Steering(paused=True)),
        (("/pyrf/pause", False), Steering(paused=False)),
        (("/pyrf/pause", 0), Steering(paused=False)),
        (("/pyrf/stop", True), Steering(stop=True)),
    ],
)
def test_what_messages_ask_for(heard: Heard, message: tuple[str, Any], asked: Steering) -> None:
    assert heard.after(message) == asked
    assert not heard.complaints


def test_a_seed_may_come_as_a_float(heard: Heard) -> None:
    heard.sender.send_message("/pyrf/seed", 7.0)
    heard.osc.wait()
    assert heard.osc.take() == Steering(seed=7)


def test_the_newest_counts_and_a_repetition_changes_nothing(heard: Heard) -> None:
    asked = heard.after(*(("/pyrf/adapter/ink", n / 8) for n in range(9)), ("/pyrf/prompt", BLUE))
    assert asked == Steering(prompt=(BLUE, 0.0), adapters={"ink": 1.0})
    assert heard.after(("/pyrf/prompt", BLUE), ("/pyrf/adapter/ink", 1.0)) == Steering()
    assert heard.after(("/pyrf/prompt", PROMPT), ("/pyrf/prompt", BLUE)) == Steering(prompt=(BLUE, 0.0))


@pytest.mark.parametrize("when", [IMMEDIATELY, 2_080_000_000], ids=["now", "in 2035"])
def test_a_bundle_acts_at_once(heard: Heard, when: int) -> None:
    bundle = OscBundleBuilder(when)
    for address, argument in (("/pyrf/prompt", BLUE), ("/pyrf/pause", 1)):
        message = OscMessageBuilder(address)
        message.add_arg(argument)
        bundle.add_content(message.build())
    heard.sender.send(bundle.build())
    assert heard.settled() == Steering(prompt=(BLUE, 0.0), paused=True)


def packed(*parts: bytes) -> bytes:
    """A bundle of parts, each with its true size."""
    return b"#bundle\0" + bytes(8) + b"".join(struct.pack(">i", len(part)) + part for part in parts)


STOP = b"/pyrf/stop\0\0,\0\0\0"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no message of OSC"),
        (b"GET / HTTP/1.1", "no message of OSC"),
        (b"/pyrf/prompt\0\0\0\0,s\0\0", "no message of OSC"),
        (b"/pyrf/\xff\xff\0\0\0\0", "no message of OSC"),
        (b"/pyrf/prompt\0\0\0\0,b\0\0" + bytes(4), "an argument of type 'b'"),
        (b"/pyrf/prompt\0\0\0\0,[s]\0\0\0\0", "type '\\['"),
        (bytes(MAX_DATAGRAM_BYTES + 1), f"more than {MAX_DATAGRAM_BYTES} bytes"),
        (b"#bundle\0" + bytes(8) + struct.pack(">i", -4), "a broken bundle"),
        (b"#bundle\0" + bytes(8) + struct.pack(">i", 2**31 - 1) + STOP, "a broken bundle"),
        (packed(packed(STOP)), "inside of a bundle"),
        (packed(*[STOP] * 65), "more than 64 messages"),
    ],
)
def test_broken_packets(heard: Heard, data: bytes, words: str) -> None:
    heard.sender._sock.sendto(data, heard.osc.address)
    heard.settled()
    (complaint,) = heard.complaints
    assert re.search(words, complaint)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda data: b"#bundle\0" + bytes(8) + data))
def test_no_packet_harms(data: bytes) -> None:
    osc = OscListener(0, complain=lambda _: None)
    try:
        osc._take_datagram(data)
    finally:
        osc.close()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (("/other/prompt", "x"), "those of pyrf begin with /pyrf/"),
        (("/pyrf/promt", "x"), "/pyrf/promt: no such address; there are /pyrf/prompt, /pyrf/adapter/NAME,"),
        (("/pyrf/prompt/ink", "x"), "no such address"),
        (("/pyrf/prompt", []), "/pyrf/prompt: takes a text"),
        (("/pyrf/prompt", " "), "takes a text"),
        (("/pyrf/prompt", 3), "takes a text"),
        (("/pyrf/prompt", ["x", -1.0]), "over must be a number of seconds"),
        (("/pyrf/prompt", ["x", "soon"]), "over must be a number of seconds"),
        (("/pyrf/prompt", ["x", 1, 2]), "takes a text"),
        (("/pyrf/adapter/oil", 1.0), "no such adapter; there are: a/b, ink"),
        (("/pyrf/adapter/ink", 11.0), "must be a number of -10..10, got 11.0"),
        (("/pyrf/adapter/ink", float("nan")), "takes one number"),
        (("/pyrf/adapter/ink", "high"), "takes one number"),
        (("/pyrf/adapter", 1.0), "no such address"),
        (("/pyrf/pause", "yes"), "takes one number"),
        (("/pyrf/seed", 1.5), "/pyrf/seed: takes a whole number"),
        (("/pyrf/seed", -1), "takes a whole number"),
        (("/pyrf/seed", []), "takes one number"),
    ],
)
def test_bad_messages_are_told_and_change_nothing(heard: Heard, message: tuple[str, Any], words: str) -> None:
    assert heard.after(message) == Steering()
    (complaint,) = heard.complaints
    assert words in complaint
    assert len(complaint) < 300


def test_complaints_are_few(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("pyrf.integrations.osc.time.monotonic", lambda: now[0])
    for second in (0.0, 0.5, 0.9, 1.0, 1.5):
        now[0] = second
        heard.osc.complain(f"{second}")
    assert heard.complaints == ["0.0", "1.0"]


def test_by_default_complaints_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pyrf.osc"), OscListener(0) as osc:
        osc.complain("no such address")
    assert caplog.messages == ["no such address"]


def test_a_port_that_is_taken_is_refused(heard: Heard) -> None:
    host, port = heard.osc.address
    with pytest.raises(ValueError, match=f"cannot listen for OSC on {host}:{port}: .+; choose another"):
        OscListener(port, host)
    with pytest.raises(ValueError, match="cannot listen"):
        OscListener(70000)


def test_loopback() -> None:
    for host, wanted in (("127.0.0.1", True), ("0.0.0.0", False)):
        osc = OscListener(0, host)
        assert osc.is_loopback is wanted
        osc.close()


def test_it_steers_a_stream(random_bundle: Path, heard: Heard) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    wanted = pipe(PROMPT, num_frames=33, seed=6, timeline={1: BLUE}).frames
    parts = []
    with pipe.stream(PROMPT, seed=6) as stream:
        for chunk in stream:
            parts.append(chunk.frames)
            if chunk.index == 2:
                break
            heard.sender.send_message("/pyrf/prompt", BLUE if chunk.index == 0 else "red " * 1500)
            heard.osc.wait()
            asked = heard.osc.steer(stream)
            assert (asked.prompt is None) == (chunk.index == 1)
    np.testing.assert_array_equal(np.concatenate(parts), wanted)
    (complaint,) = heard.complaints
    assert "tokens" in complaint


def test_the_page_runs_and_lists_every_address() -> None:
    page = (Path(__file__).parents[2] / "docs" / "osc.md").read_text()
    names = [ROOT + (f"{name}/NAME" if name == "adapter" else name) for name in READERS]
    assert re.findall(r"^\| `(/pyrf/[^`]+)` \|", page, re.MULTILINE) == names
    block = page.split("```python\n")[1].split("```")[0]
    port = free_port(socket.SOCK_DGRAM)
    sender, shown = SimpleUDPClient("127.0.0.1", port), []

    def show(frames: np.ndarray) -> None:
        shown.append(frames)
        sender.send_message("/pyrf/stop", [])

    assert block.count("9000") == 1
    exec(compile(block.replace("9000", str(port)), "osc.md", "exec"), {"show": show})
    assert shown
