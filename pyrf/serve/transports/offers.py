"""What a WebRTC offer says, read before aiortc sees it: what a viewer needs is taken, and nothing else.

An offer comes from a stranger. aiortc makes sockets for each of its media, sends packets to each of its
candidates, and looks names up. So the offer is read here, within bounds, and written anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from pyrf.serve.transports.encoding import VideoCodec

MAX_LINES = 1000
"""Of an offer; browsers that list every codec they have send some 250."""
MAX_CANDIDATES = 32
"""That an offer may name."""
MAX_USED_CANDIDATES = 8
"""That packets are sent to."""
HEADER_EXTENSIONS = {
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
}
FEEDBACK = ("nack", "nack pli", "goog-remb")

_MEDIA = re.compile(r"(?P<kind>[a-z]{1,16}) (?P<port>\d{1,5}) [A-Z/]{3,32} (?P<formats>[\w\- ]{1,512})")
_ICE_CHARS = r"[A-Za-z0-9+/]"
_ATTRIBUTES = {
    "mid": r"[\w\-+.]{1,32}",
    "ice-ufrag": rf"{_ICE_CHARS}{{4,256}}",
    "ice-pwd": rf"{_ICE_CHARS}{{22,256}}",
    "fingerprint": r"(?i:sha-(?:256|384|512) [0-9a-f]{2}(?::[0-9a-f]{2}){31,63})",
    "setup": r"actpass|active|passive",
    "sctp-port": r"\d{1,4}|[1-5]\d{4}",
    "max-message-size": r"\d{1,10}",
}
"""Attributes that have one value, and what it looks like."""
_CANDIDATE = re.compile(
    r"[\w+/\-]{1,32} (?P<component>\d{1,3}) (?P<transport>\w{1,8}) (?P<priority>\d{1,10}) "
    r"(?P<host>[\w.:\-%]{1,255}) (?P<port>\d{1,5}) typ (?P<kind>host|srflx|prflx|relay)( .*)?"
)
_OPUS = re.compile(r"(?P<payload>\d{1,3}) opus/48000/2", re.IGNORECASE)
_RTPMAP = re.compile(r"(?P<payload>\d{1,3}) (?P<name>VP8|H264|rtx)/90000", re.IGNORECASE)
_H264_PROFILES = re.compile(r"42[0-9a-f]0(0[a-d]|1[4-6]|1[ef]|20|2[89a]|3[2-4])", re.IGNORECASE)
"""Baseline, as it is sent, of any level."""

Address = IPv4Address | IPv6Address


@dataclass
class _Media:
    """One medium of an offer; `attributes` have a single value, `lines` are those of the codecs."""

    kind: str
    formats: list[str]
    attributes: dict[str, str]
    direction: str = "sendrecv"
    muxed: bool = False
    lines: list[tuple[str, str]] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ReadOffer:
    """An offer that can be answered.

    Attributes:
        sdp: written anew, for aiortc.
        codec: that the video is to be sent in.
        named: candidates that the offer named.
        used: those of them that packets may be sent to.
        sends: whether the viewer may send a video of its own.
        mid: of the video, which all candidates belong to.
        ufrag: of the viewer's ICE agent.
    """

    sdp: str
    codec: VideoCodec
    named: int
    used: int
    sends: bool
    mid: str
    ufrag: str


def as_address(text: str) -> Address | None:
    """An IP address, one of IPv4 that is written as IPv6 as IPv4; None for what is a name."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def read_offer(text: str, allowed: Collection[Address], *, of_player: bool = False) -> ReadOffer:
    """Read an offer of one video to receive, and a data channel if it has one.

    Args:
        of_player: whether a player of WHEP offers. It gets the video alone: no data channel, and an audio
            that it asks for stays silent.
        allowed: addresses that packets may be sent to on the offer's word. Candidates elsewhere are left out:
            a viewer there is heard when its own packets arrive, signed with the answer's password.

    Raises:
        ValueError: saying what the offer has that it must not have, or lacks.
    """
    session, media = _split(text)
    kinds = [medium.kind for medium in media]
    videos = [medium for medium in media if medium.kind == "video"]
    if not videos or videos[0].direction not in ("recvonly", "sendrecv"):
        raise ValueError("it asks for no video; add one video transceiver to receive (recvonly)")
    beside, what = ("audio", "audio") if of_player else ("application", "data channel")
    if kinds not in (["video"], ["video", beside], [beside, "video"]):
        raise ValueError(f"it has {_listed(kinds)}; offer one video to receive, and one {what} at most")
    first = media[0].attributes if of_player else {}  # of a bundle others may leave out what it says
    for medium in media:
        medium.attributes = {**session.attributes, **first, **medium.attributes}
        for name in ("mid", "ice-ufrag", "ice-pwd", "fingerprint", "setup"):
            if name not in medium.attributes:
                raise ValueError(f"its {medium.kind} has no a={name} line")
    mids = [medium.attributes["mid"] for medium in media]
    bundled = next((value.split()[1:] for name, value in session.lines if name == "group"), mids[:1])
    if len(set(mids)) < len(mids) or sorted(bundled) != sorted(mids):
        raise ValueError("its media are not bundled; offer all of them in one a=group:BUNDLE")
    codec, payload, lines = _codec(videos[0])
    named = [line for medium in media for line in medium.candidates]
    used = list(_usable(named, allowed))[:MAX_USED_CANDIDATES]
    written = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=group:BUNDLE {' '.join(mids)}"]
    written.append("a=msid-semantic: WMS *")
    for i, medium in enumerate(media):
        if medium.kind == "video":
            written += [f"m=video 9 UDP/TLS/RTP/SAVPF {payload}", "c=IN IP4 0.0.0.0"]
            written += [f"a={medium.direction}", *lines]
            written += ["a=rtcp-mux"]
        elif medium.kind == "audio":
            opus = _opus(medium)
            written += [f"m=audio 9 UDP/TLS/RTP/SAVPF {opus}", "c=IN IP4 0.0.0.0", "a=inactive"]
            written += [f"a=rtpmap:{opus} opus/48000/2", "a=rtcp-mux"]
        else:
            written += ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0"]
            written += [f"a=sctp-port:{medium.attributes.get('sctp-port', '5000')}"]
            written += [f"a=max-message-size:{medium.attributes.get('max-message-size', '65536')}"]
        for name in ("mid", "ice-ufrag", "ice-pwd", "fingerprint", "setup"):
            written.append(f"a={name}:{medium.attributes[name]}")
        if i == 0:
            written += [f"a=candidate:{candidate}" for candidate in used]
    sends = videos[0].direction == "sendrecv"
    mid, ufrag = videos[0].attributes["mid"], media[0].attributes["ice-ufrag"]
    return ReadOffer("\r\n".join(written) + "\r\n", codec, len(named), len(used), sends, mid, ufrag)


def read_fragment(text: str, ufrag: str, allowed: Collection[Address]) -> tuple[int, list[str]]:
    """Read candidates that come after an offer (RFC 8840, `application/trickle-ice-sdpfrag`).

    Args:
        ufrag: of the offer.
        allowed: as of `read_offer`.

    Returns:
        How many it names, and those that packets may be sent to. All are of the one bundle.

    Raises:
        ValueError: when it is none, or begins ICE anew.
    """
    session, media = _read_lines(_lines(text))
    given = {medium.attributes.get("ice-ufrag", ufrag) for medium in (session, *media)}
    if given != {ufrag}:
        raise ValueError("it begins ICE anew, which is not done here; delete this one and offer again")
    named = [line for medium in media for line in medium.candidates]
    return len(named), list(_usable(named, allowed))


def _listed(kinds: list[str]) -> str:
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))


def _split(text: str) -> tuple[_Media, list[_Media]]:
    """What holds for the whole session, and its media.

    Raises:
        ValueError: for too much of anything, or a line that is none.
    """
    lines = _lines(text)
    if lines[0] != "v=0":
        raise ValueError("it is no session description; that begins with v=0")
    return _read_lines(lines)


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").rstrip("\n").split("\n")


def _read_lines(lines: list[str]) -> tuple[_Media, list[_Media]]:
    if len(lines) > MAX_LINES:
        raise ValueError(f"it has {len(lines)} lines; {MAX_LINES} are enough")
    session = _Media("session", [], {})
    media: list[_Media] = []
    for line in lines:
        if not re.fullmatch(r"[a-z]=[^\x00-\x1f\x7f\u0085\u2028\u2029]*", line):
            raise ValueError(f"it has a line that is none of a session description: {line[:40]!r}")
        kind, _, value = line.partition("=")
        if kind == "m":
            match = _MEDIA.fullmatch(value)
            if match is None:
                raise ValueError(f"it has a medium that cannot be read: {line[:40]!r}")
            media.append(_Media(match["kind"], match["formats"].split(), {}))
            if len(media) > 8:  # named below by how many there are, if they are not absurdly many
                raise ValueError("it has more than 8 media; offer one video to receive, and one data channel")
        elif kind == "a":
            _read_attribute(media[-1] if media else session, *value.partition(":")[::2])
    count = sum(len(medium.candidates) for medium in media)
    if count > MAX_CANDIDATES:
        raise ValueError(f"it names {count} candidates; {MAX_CANDIDATES} are enough")
    return session, media


def _read_attribute(medium: _Media, name: str, value: str) -> None:
    if name == "ice-lite":
        raise ValueError("it comes from an ICE lite agent, which starts no connection; offer as a full agent")
    if pattern := _ATTRIBUTES.get(name):
        if not re.fullmatch(pattern, value):
            raise ValueError(f"its a={name} line cannot be read: {value[:40]!r}")
        medium.attributes.setdefault(name, value)  # of several fingerprints any one will do
    elif name in ("recvonly", "sendrecv", "sendonly", "inactive"):
        medium.direction = name
    elif name == "candidate":
        medium.candidates.append(value)
    elif name in ("rtpmap", "fmtp", "rtcp-fb", "extmap") or (name == "group" and value.startswith("BUNDLE")):
        medium.lines.append((name, value))


def _codec(video: _Media) -> tuple[VideoCodec, str, list[str]]:
    """The codec to send in, its payload types, and its lines: H.264 if there is one that fits, else VP8.

    As they are encoded here, both take the same time, and H.264 shows the better picture by a decibel.
    """
    names: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for name, value in video.lines:
        if name == "rtpmap" and (match := _RTPMAP.fullmatch(value)) and match["payload"] in video.formats:
            if 96 <= int(match["payload"]) <= 127:  # aiortc answers others with numbers of its own
                names[match["payload"]] = match["name"].upper()
        elif name == "fmtp":
            payload, _, rest = value.partition(" ")
            parameters[payload] = rest
    ranked = sorted(names, key=lambda payload: names[payload] != "H264")
    for payload in ranked:
        lines = [f"a=rtpmap:{payload} {names[payload]}/90000"]
        if names[payload] == "H264":
            given = dict(part.strip().partition("=")[::2] for part in parameters.get(payload, "").split(";"))
            profile = given.get("profile-level-id", "42e01f")
            if given.get("packetization-mode") != "1" or not _H264_PROFILES.fullmatch(profile):
                continue
            fits = f"level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}"
            lines.append(f"a=fmtp:{payload} {fits}")
        elif names[payload] != "VP8":
            continue
        asked = {tuple(value.split(" ", 1)) for name, value in video.lines if name == "rtcp-fb"}
        lines += [f"a=rtcp-fb:{payload} {f}" for f in FEEDBACK if {(payload, f), ("*", f)} & asked]
        again = next((p for p in names if names[p] == "RTX" and parameters.get(p) == f"apt={payload}"), None)
        if again is not None:
            lines += [f"a=rtpmap:{again} rtx/90000", f"a=fmtp:{again} apt={payload}"]
        payloads = payload if again is None else f"{payload} {again}"
        codec: VideoCodec = "H264" if names[payload] == "H264" else "VP8"
        return codec, payloads, _extensions(video) + lines
    raise ValueError("it has no codec that the server sends; offer H264 (baseline, mode 1) or VP8")


def _opus(audio: _Media) -> int:
    """The payload type of an audio that nobody will send."""
    for name, value in audio.lines:
        match = _OPUS.fullmatch(value) if name == "rtpmap" else None
        if match is not None and 96 <= int(match["payload"]) <= 127:
            return int(match["payload"])
    raise ValueError("its audio has no Opus; leave the audio out, as there is none")


def _extensions(video: _Media) -> list[str]:
    kept = []
    for name, value in video.lines:
        number, _, uri = value.partition(" ")
        if name == "extmap" and re.fullmatch(r"([1-9]|1[0-4])", number) and uri in HEADER_EXTENSIONS:
            kept.append(f"a=extmap:{number} {uri}")
    return kept[: len(HEADER_EXTENSIONS)]


def _usable(lines: Iterable[str], allowed: Collection[Address]) -> Iterable[str]:
    """Of candidates those over UDP at an allowed address, written anew.

    Raises:
        ValueError: for a line that is no candidate.
    """
    seen = set()
    for line in lines:
        match = _CANDIDATE.fullmatch(line)
        if match is None:
            raise ValueError(f"it has a candidate that cannot be read: {line[:60]!r}")
        address, port = as_address(match["host"]), int(match["port"])
        if address not in allowed or match["transport"].lower() != "udp" or match["component"] != "1":
            continue
        if 0 < port < 2**16 and (address, port) not in seen:
            seen.add((address, port))
            kind = "srflx" if match["kind"] == "prflx" else match["kind"]
            yield f"{len(seen)} 1 udp {min(int(match['priority']), 2**31 - 1)} {address} {port} typ {kind}"
