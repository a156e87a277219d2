"""The page's video over WebRTC, and over the WebSocket where that fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import expect

from tests.support.browser import Visit, find_chromium
from tests.support.running import Running
from tests.support.shapes_page import BLUE, RED, shows

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


def test_webrtc_plays_the_same_session(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.page.select_option("#transport", "webrtc")
    v.start(RED)
    v.until("document.getElementById('video').videoWidth === 96")
    v.send(BLUE)
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    v.page.click("#stop")
    v.await_state("ended")


def test_without_webrtc_the_video_comes_over_the_websocket(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.page.evaluate(
        """() => {
          window.RTCPeerConnection = class extends RTCPeerConnection {
            setRemoteDescription() { return Promise.reject(new Error("the network says no")); }
          };
        }"""
    )
    v.page.select_option("#transport", "webrtc")
    v.start(RED)
    expect(v.page.locator("#problem")).to_contain_text("over the WebSocket instead")
    assert v.page.input_value("#transport") == "websocket"
    shows(v, "red", "circle")


def test_a_server_without_webrtc_offers_none(
    serve: Callable[..., Running], visit: Callable[..., Visit]
) -> None:
    v = visit(int(serve(webrtc=False).url.rsplit(":", 1)[1]))
    v.await_state("idle")
    expect(v.page.locator("#transport")).to_be_hidden()
    v.start("a red circle")


def test_webrtc_sends_h264_or_else_vp8(port: int, visit: Callable[..., Visit]) -> None:
    """What this Chromium is sent, and what one without H.264 is."""
    for without, sent in (([], "video/H264"), (["H264"], "video/VP8")):
        v = visit(port)
        v.page.evaluate(
            """(without) => {
              window.RTCPeerConnection = class extends RTCPeerConnection {
                constructor(...args) { super(...args); window.peer = this; }
                addTransceiver(kind, init) {
                  const transceiver = super.addTransceiver(kind, init);
                  const { codecs } = RTCRtpReceiver.getCapabilities(kind);
                  const left = codecs.filter(({ mimeType }) => !without.includes(mimeType.slice(6)));
                  transceiver.setCodecPreferences(left);
                  return transceiver;
                }
              };
            }""",
            without,
        )
        v.page.select_option("#transport", "webrtc")
        v.start(RED)
        v.until("document.getElementById('video').videoWidth === 96")
        used = v.page.evaluate(
            """async () => {
              const stats = [...(await window.peer.getStats()).values()];
              const { codecId } = stats.find(({ type }) => type === "inbound-rtp");
              return stats.find(({ id }) => id === codecId).mimeType;
            }"""
        )
        assert used == sent
        v.page.click("#stop")
        v.await_state("ended")


def test_webrtc_uses_the_servers_ice_servers(
    serve: Callable[..., Running], visit: Callable[..., Visit]
) -> None:
    running = serve(ice_servers=("turn:bob:secret@127.0.0.1:1",))
    v = visit(int(running.url.rsplit(":", 1)[1]))
    v.page.evaluate(
        """() => {
          const Plain = RTCPeerConnection;
          window.RTCPeerConnection = class extends Plain {
            constructor(configuration) {
              super(configuration);
              window.iceServers = this.getConfiguration().iceServers;
            }
          };
        }"""
    )
    v.page.select_option("#transport", "webrtc")
    v.send("a red circle")
    v.until("window.iceServers")
    (server,) = v.page.evaluate("window.iceServers")
    assert server["urls"] == ["turn:127.0.0.1:1"]
    assert (server["username"], server["credential"]) == ("bob", "secret")
