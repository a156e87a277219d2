"""WHEP: an offer posted to one address, of aiortc's peer and of a player that no one here wrote."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from pyrf.protocol import MAX_SDP
from pyrf.serve.ice import parse_ice_server
from pyrf.serve.transports.offers import MAX_CANDIDATES, MAX_USED_CANDIDATES
from pyrf.serve.transports.whep import ice_links
from tests.serve.transports.test_offers import GOOD, candidate
from tests.serve.transports.test_webrtc import run
from tests.support.browser import find_chromium
from tests.support.npm import WHIP_WHEP, player
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.running import TIMEOUT, Running, read_frames

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
VIDEO = GOOD[: GOOD.index("m=application")].replace("BUNDLE 0 1", "BUNDLE 0")
UFRAG = re.search(r"a=ice-ufrag:(.*)\r\n", GOOD)[1]  # type: ignore[index]


def bearer(created: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {created['token']}"}


def offer(server: Running, created: dict[str, Any], sdp: str = VIDEO, **headers: str) -> httpx.Response:
    """Post an offer to the address to watch at."""
    return server.http.post(f"{created['watch']}/whep", content=sdp, headers={**SDP, **headers})


def fragment(*candidates: str, ufrag: str = UFRAG) -> str:
    lines = [f"a=ice-ufrag:{ufrag}", "a=ice-pwd:" + 22 * "p", "m=video 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0"]
    return "\r\n".join([*lines, *candidates, "a=end-of-candidates", ""])


def patch(server: Running, answered: httpx.Response, text: str, etag: str | None = None) -> httpx.Response:
    headers = FRAGMENT if etag is None else {**FRAGMENT, "If-Match": etag}
    return server.http.patch(answered.headers["location"], content=text, headers=headers)


class Player:
    """What a WHEP player does: asks for audio first and for the video then, as many do."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        for kind in ("audio", "video"):
            self.connection.addTransceiver(kind, direction="recvonly")
        self.tracks: dict[str, Any] = {}
        self.connection.on("track", lambda track: self.tracks.update({track.kind: track}))

    async def play(self, url: str, http: httpx.AsyncClient, *, trickles: bool = False) -> httpx.Response:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        sdp = self.connection.localDescription.sdp
        named = re.findall(r"a=candidate:.*\r\n", sdp)
        if trickles:
            sdp = re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", sdp)
        answered = await http.post(url, content=sdp, headers=SDP)
        assert answered.status_code == 201, answered.text
        if trickles:
            text = fragment(*map(str.strip, named), ufrag=re.search(r"ice-ufrag:(.*)\r\n", sdp)[1])  # type: ignore[index]
            added = await http.patch(
                answered.headers["location"],
                content=text,
                headers={**FRAGMENT, "If-Match": answered.headers["etag"]},
            )
            assert (added.status_code, added.content) == (204, b"")
        await self.connection.setRemoteDescription(RTCSessionDescription(answered.text, "answer"))
        return answered


def test_several_players_watch_beside_the_viewer(server: Running) -> None:
    created = server.create()
    session = server.session(created)

    async def watch() -> None:
        players = [Player(), Player()]
        async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT) as http:
            first = await players[0].play(f"{created['watch']}/whep", http, trickles=True)
            http.headers.update(bearer(created))
            second = await players[1].play(f"/v1/sessions/{created['id']}/whep", http)
            for player in players:
                seen = [await player.tracks["video"].recv() for _ in range(12)]
                assert {(frame.height, frame.width) for frame in seen} == {(HEIGHT, WIDTH)}
                assert any((seen[0].to_ndarray() != frame.to_ndarray()).any() for frame in seen)
                (audio,) = re.findall(r"m=audio.*?(?=m=)", player.connection.remoteDescription.sdp, re.S)
                assert "a=inactive" in audio
            assert len(session.watchers) == 2
            assert session.viewer is not None
            assert first.headers["location"].startswith(f"{created['watch']}/whep/")
            for answered in (first, second):
                assert (await http.delete(answered.headers["location"])).status_code == 204
                assert (await http.delete(answered.headers["location"])).status_code == 404
        for player in players:
            await player.connection.close()

    with server.attach(created) as viewer:
        read_frames(viewer, 1)
        run(watch())
        server.wait_until(lambda: len(session.watchers) == 0)
        read_frames(viewer, 12)
    server.delete(created)
    server.wait_until(lambda: not server.state.peers._peers)


def test_a_session_goes_on_for_a_player_alone_and_its_end_ends_the_player(server: Running) -> None:
    created = server.create(grace_s=0)

    async def watch() -> None:
        player = Player()
        async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT) as http:
            await player.play(f"{created['watch']}/whep", http)
        for _ in range(40):
            await player.tracks["video"].recv()
        closed = asyncio.Event()
        player.connection.on("connectionstatechange", closed.set)
        await asyncio.to_thread(server.delete, created)
        await closed.wait()
        await player.connection.close()

    run(watch())
    server.wait_until(lambda: not server.state.peers._peers)


def test_players_take_the_places_of_watchers(serve: Callable[..., Running]) -> None:
    server = serve(max_watchers=2)
    created = server.create()
    answers = [offer(server, created) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert "2 watchers at a time" in answers[2].text
    assert server.http.get(f"{created['watch']}/frames.mjpeg").status_code == 429
    assert server.http.delete(answers[0].headers["location"]).status_code == 204
    server.wait_until(lambda: len(server.session(created).watchers) == 1)
    assert offer(server, created).status_code == 201
    server.delete(created)


def test_candidates_come_later_within_bounds(server: Running) -> None:
    created = server.create()
    answered = offer(server, created, VIDEO.replace("\r\na=candidate", "\r\na=x-none"))
    etag = answered.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]+"', etag)
    assert answered.headers["accept-patch"] == FRAGMENT["Content-Type"]
    (playing,) = [one for one in server.state.players._playing.values() if one.etag == etag]
    here = [candidate("127.0.0.1", port) for port in range(1000, 1012)]
    elsewhere = candidate("192.0.2.7", 1000)
    assert patch(server, answered, fragment(elsewhere, *here), etag).status_code == 204
    ice = playing.peer.connection.getTransceivers()[0].sender.transport.transport
    assert {one.ip for one in ice.getRemoteCandidates()} == {"127.0.0.1"}
    assert len(ice.getRemoteCandidates()) == MAX_USED_CANDIDATES
    assert patch(server, answered, fragment(here[0]), "*").status_code == 204
    stale = patch(server, answered, fragment(here[0]), '"other"')
    assert (stale.status_code, stale.json()["error"]["code"]) == (412, "wrong_version")
    restart = patch(server, answered, fragment(ufrag="another"), "*")
    assert (restart.status_code, restart.json()["error"]["code"]) == (422, "bad_offer")
    many = patch(server, answered, fragment(*[here[0]] * MAX_CANDIDATES))
    assert (many.status_code, many.json()["error"]["code"]) == (422, "bad_offer")
    assert patch(server, answered, "nonsense").status_code == 422
    server.delete(created)


@pytest.mark.parametrize(
    ("sdp", "kind", "status"),
    [
        ("", "application/sdp", 422),
        (GOOD, "application/sdp", 422),  # it has a data channel
        (VIDEO, "application/json", 415),
        (VIDEO + "a=" + MAX_SDP * "x", "application/sdp", 422),
        (VIDEO.replace("a=recvonly", "a=sendonly"), "application/sdp", 422),
    ],
)
def test_what_is_refused(server: Running, sdp: str, kind: str, status: int) -> None:
    created = server.create()
    assert offer(server, created, sdp, **{"Content-Type": kind}).status_code == status
    assert len(server.session(created).watchers) == 0
    server.delete(created)


def test_who_may_play(server: Running) -> None:
    created, other = server.create(), server.create()
    place = f"/v1/sessions/{created['id']}"
    for path in (f"{place}/whep", f"{place}/watch/{created['token']}/whep", f"{other['watch']}x/whep"):
        assert server.http.post(path, content=VIDEO, headers=SDP).status_code == 404
    answered = offer(server, created)
    player = answered.headers["location"].rsplit("/", 1)[1]
    assert server.http.delete(f"{place}/whep/{player}").status_code == 404
    assert server.http.delete(f"{other['watch']}/whep/{player}").status_code == 404
    assert server.http.delete(f"{place}/whep/{player}", headers=bearer(created)).status_code == 204
    server.delete(created)
    server.delete(other)


def test_players_of_other_sites_and_ice_servers(serve: Callable[..., Running]) -> None:
    site = "https://player.example"
    server = serve(origins=(site,), ice_servers=("stun:127.0.0.1:9",))
    created = server.create()
    asked = {"Origin": site, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "content-type,authorization"
    preflight = server.http.options(f"{created['watch']}/whep", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == site
    plain = server.http.options(f"{created['watch']}/whep")
    assert (plain.status_code, plain.headers["accept-post"]) == (204, "application/sdp")
    answered = offer(server, created, Origin=site)
    assert answered.status_code == 201
    told = {name.strip() for name in answered.headers["access-control-expose-headers"].split(",")}
    assert told >= {"Location", "ETag", "Link"}
    assert answered.headers["link"] == '<stun:127.0.0.1:9>; rel="ice-server"'
    assert offer(server, created, Origin="https://other.example").status_code == 403
    server.delete(created)


def test_passwords_of_ice_servers_are_told_to_owners_alone() -> None:
    servers = [parse_ice_server(text) for text in ("stun:one.example", "turn:me:a%22b@two.example:5")]
    assert list(ice_links(servers, with_passwords=False)) == ['<stun:one.example>; rel="ice-server"']
    _, told = ice_links(servers, with_passwords=True)
    assert told.startswith('<turn:two.example:5>; rel="ice-server"; username="me"; ')
    assert told.endswith('; credential="a\\"b"; credential-type="password"')


PLAYER = """<!doctype html><video muted autoplay></video><script type="module">
import { WHEPClient } from "./whep.js";
window.play = async (url, token) => {
  const pc = (window.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" }));
  pc.addTransceiver("audio");
  pc.addTransceiver("video");
  pc.ontrack = ({ track, streams }) => {
    if (track.kind === "video") document.querySelector("video").srcObject = streams[0];
  };
  window.player = new WHEPClient();
  await player.view(pc, url, token);
};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium")
@pytest.mark.parametrize("by_token", [True, False])
def test_a_player_from_npm_plays_it(serve: Callable[..., Running], tmp_path: Path, by_token: bool) -> None:
    """`whip-whep` in Chromium, on a page of another origin."""
    with player(WHIP_WHEP, PLAYER, tmp_path) as (page, origin):
        server = serve(origins=(origin,))
        created = server.create()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{origin}/player.html")
        own = f"/v1/sessions/{created['id']}"
        url = server.url + (own if by_token else created["watch"]) + "/whep"
        page.wait_for_function("'play' in window")
        page.evaluate("([url, token]) => play(url, token)", [url, created["token"] if by_token else None])
        page.wait_for_function("document.querySelector('video').currentTime > 1")
        assert page.evaluate("document.querySelector('video').videoWidth") == created["width"]
        assert page.evaluate("document.querySelector('video').videoHeight") == created["height"]
        assert len(server.session(created).watchers) == 1
        page.evaluate("player.stop()")
        server.wait_until(lambda: len(server.session(created).watchers) == 0)
        assert problems == []
        server.delete(created)
