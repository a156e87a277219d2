"""Offers of strangers: what is taken of them, and what is refused before aiortc sees it."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyrf.serve.transports.offers import MAX_CANDIDATES, as_address, read_offer

HERE = ip_address("203.0.113.7")
PRINT = "sha-256 " + ":".join(["AB"] * 32)
SECRETS = ["a=ice-ufrag:abcd", "a=ice-pwd:" + "p" * 22, f"a=fingerprint:{PRINT}", "a=setup:actpass"]
H264 = ["a=rtpmap:102 H264/90000", "a=fmtp:102 packetization-mode=1;profile-level-id=42e01f"]
VP8 = ["a=rtpmap:96 VP8/90000", "a=rtcp-fb:96 nack", "a=rtcp-fb:96 nack pli", "a=rtcp-fb:* goog-remb"]
RTX = ["a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96"]
VIDEO = ["m=video 9 UDP/TLS/RTP/SAVPF 96 97 102", "a=mid:0", "a=recvonly", *SECRETS, *VP8, *RTX, *H264]
DATA = ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "a=mid:1", *SECRETS, "a=sctp-port:5000"]
HEAD = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]


def sdp(*lines: str) -> str:
    return "\r\n".join(lines) + "\r\n"


GOOD = sdp(*HEAD, *VIDEO, *DATA)


def candidate(host: str, port: int = 5000, kind: str = "host", transport: str = "udp", part: int = 1) -> str:
    return f"a=candidate:1 {part} {transport} 2122260223 {host} {port} typ {kind} generation 0"


def used(*candidates: str) -> list[str]:
    """Hosts and ports that packets would be sent to."""
    read = read_offer(sdp(*HEAD, *VIDEO, *candidates, *DATA), {HERE})
    assert read.named == len(candidates)
    found = SessionDescription.parse(read.sdp).media[0].ice_candidates
    assert read.used == len(found)
    return [f"{one.ip} {one.port} {one.type}" for one in found]


def test_what_is_written_is_what_aiortc_reads() -> None:
    read = read_offer(GOOD, ())
    video, data = SessionDescription.parse(read.sdp).media
    assert (video.kind, video.direction, video.rtp.muxId, data.kind, data.sctp_port) == (
        "video",
        "recvonly",
        "0",
        "application",
        5000,
    )
    for medium in (video, data):
        assert medium.ice is not None
        assert medium.dtls is not None
        assert (medium.ice.usernameFragment, medium.ice.password) == ("abcd", "p" * 22)
        assert [f"{one.algorithm} {one.value}" for one in medium.dtls.fingerprints] == [PRINT]
        assert not medium.ice_candidates_complete  # others may be found out by their own packets
    assert read.codec == "H264"
    assert [codec.name for codec in video.rtp.codecs] == ["H264"]


def test_vp8_where_no_h264_fits() -> None:
    for line, other in (
        (H264[0], "a=rtpmap:102 AV1/90000"),
        (H264[1], "a=fmtp:102 packetization-mode=0;profile-level-id=42e01f"),
        (H264[1], "a=fmtp:102 packetization-mode=1;profile-level-id=640c1f"),
        (H264[1], "a=fmtp:102 packetization-mode=1;profile-level-id=42e0ff"),
        (H264[1], "a=fmtp:102"),
    ):
        read = read_offer(GOOD.replace(line, other), ())
        assert read.codec == "VP8"
        codecs = SessionDescription.parse(read.sdp).media[0].rtp.codecs
        assert [(codec.name, codec.payloadType) for codec in codecs] == [("VP8", 96), ("rtx", 97)]
        feedback = {f"{one.type} {one.parameter or ''}".strip() for one in codecs[0].rtcpFeedback}
        assert feedback == {"nack", "nack pli", "goog-remb"}


@pytest.mark.parametrize("host", ["203.0.113.7", "::ffff:203.0.113.7"])
@pytest.mark.parametrize("kind", ["host", "srflx", "relay"])
def test_candidates_at_the_viewers_own_address(host: str, kind: str) -> None:
    assert used(candidate(host, kind=kind)) == [f"203.0.113.7 5000 {kind}"]


@pytest.mark.parametrize(
    "line",
    [
        *(candidate(host) for host in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "8.8.8.8", "0.0.0.0")),
        *(candidate(host) for host in ("::1", "fe80::1%eth0", "224.0.0.251", "255.255.255.255", "ff02::fb")),
        candidate("3f2c7a0e-aaaa-bbbb-cccc-0123456789ab.local"),
        candidate("victim.example"),
        candidate("localhost"),
        candidate("2130706433"),
        candidate("0x7f000001"),
        candidate("203.0.113.7", transport="tcp"),
        candidate("203.0.113.7", transport="TLS"),
        candidate("203.0.113.7", part=2),
        candidate("203.0.113.7", port=0),
        candidate("203.0.113.7", port=65536),
    ],
)
def test_packets_are_sent_to_no_address_of_the_senders_choice(line: str) -> None:
    assert used(line) == []


def test_few_candidates_are_used_and_each_once() -> None:
    assert len(used(*(candidate("203.0.113.7", 5000 + i) for i in range(MAX_CANDIDATES)))) == 8
    assert len(used(*[candidate("203.0.113.7")] * 10)) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no session description"),
        ("v=0", "asks for no video"),
        (sdp(*HEAD, *DATA), "asks for no video"),
        (GOOD.replace("a=recvonly", "a=sendonly"), "asks for no video"),
        (GOOD.replace("a=recvonly", "a=inactive"), "asks for no video"),
        (GOOD + sdp(*VIDEO) * 20, "more than 8 media"),
        (GOOD + sdp(*VIDEO), "it has 1 application, 2 video; offer one"),
        (GOOD + sdp(*DATA), "it has 2 application, 1 video; offer one"),
        (
            GOOD + sdp(VIDEO[0].replace("video", "audio"), *VIDEO[1:]),
            "it has 1 application, 1 audio, 1 video",
        ),
        (GOOD + sdp("m=video x"), "medium that cannot be read"),
        (GOOD + sdp("m=video 9 UDP/TLS/RTP/SAVPF " + "96 " * 400), "medium that cannot be read"),
        (GOOD + "nonsense", "line that is none"),
        (GOOD + "a=x\x00y\r\n", "line that is none"),
        (GOOD + "a=x\u2028a=ice-lite\r\n", "line that is none"),
        (GOOD + "a=mid:1\ra=ice-lite\r\n", "line that is none"),
        (GOOD + "a=x\r\n" * 1000, "lines; 1000 are enough"),
        (GOOD + sdp(*[candidate("10.0.0.1", 1000 + i) for i in range(700)]), "700 candidates; 32"),
        (GOOD + sdp("a=candidate:x"), "candidate that cannot be read"),
        (GOOD + sdp(candidate("a b")), "candidate that cannot be read"),
        (GOOD.replace("s=-", "s=-\r\na=ice-lite"), "ICE lite"),
        (GOOD.replace("a=ice-pwd:" + "p" * 22, "a=ice-pwd:short"), "a=ice-pwd line cannot be read"),
        (GOOD.replace("a=ice-ufrag:abcd", "a=ice-ufrag:ab cd"), "a=ice-ufrag line cannot be read"),
        (GOOD.replace(PRINT, "md5 00"), "a=fingerprint line cannot be read"),
        (GOOD.replace("a=setup:actpass", "a=setup:holdconn"), "a=setup line cannot be read"),
        (GOOD.replace("a=mid:0", "a=mid:<b>"), "a=mid line cannot be read"),
        (GOOD.replace("a=mid:1", "a=mid:0"), "not bundled"),
        (GOOD.replace("BUNDLE 0 1", "BUNDLE 0"), "not bundled"),
        (GOOD.replace("BUNDLE 0 1", "BUNDLE 0 1 2"), "not bundled"),
        (GOOD.replace("a=sctp-port:5000", "a=sctp-port:65536"), "a=sctp-port line cannot be read"),
        (GOOD.replace("VP8", "VP9").replace("H264", "AV1"), "no codec that the server sends"),
        (GOOD.replace(f"a=fingerprint:{PRINT}\r\n", ""), "has no a=fingerprint line"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as refused:
        read_offer(text, {HERE})
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


LINES = [
    *HEAD,
    *VIDEO,
    *DATA,
    candidate("10.1.2.3"),
    candidate("203.0.113.7"),
    "a=extmap:1 x",
    "c=IN IP4 0.0.0.0",
]
JUNK = st.text(max_size=30) | st.sampled_from(
    ["m=", "a=", "a=candidate:", "a=rtpmap:", "a=fmtp:96", "=", ":"]
)


@given(
    st.lists(
        st.sampled_from(LINES) | JUNK | st.builds(str.__add__, st.sampled_from(LINES), JUNK), max_size=60
    )
)
@settings(max_examples=300, derandomize=True)
@example([])
@example([*HEAD, *VIDEO, *DATA])
def test_nonsense_is_refused_or_harmless(lines: list[str]) -> None:
    """Whatever the offer, what reaches aiortc has one video, and packets go nowhere but to the viewer."""
    try:
        read = read_offer(sdp(*lines), {HERE})
    except ValueError:
        return
    parsed = SessionDescription.parse(read.sdp)
    assert [medium.kind for medium in parsed.media].count("video") == 1
    assert len(parsed.media) <= 2
    assert {one.ip for medium in parsed.media for one in medium.ice_candidates} <= {str(HERE)}
    assert len(read.sdp) < 8192


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1", "::1"),
        ("localhost", "None"),
        ("", "None"),
        ("010.0.0.1", "None"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert str(as_address(text)) == address
