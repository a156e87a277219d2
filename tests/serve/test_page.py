"""The page in a real Chromium, from a real `pyrf serve`.

Screenshots for the documentation: PYRF_SCREENSHOTS=docs/img pytest tests/serve/test_page.py
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import av
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.cable import Cable

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import Browser, Locator, expect

from pyrf.bundle import Card, Shown
from pyrf.pipeline import StreamingPipeline
from pyrf.worlds.shapes.attributes import Attributes
from pyrf.worlds.shapes.detector import detect
from pyrf.worlds.shapes.scenes import Scene
from tests.support.browser import TIMEOUT_S, Visit, chromium, find_chromium
from tests.support.running import Running

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")

RED = "a large red circle moves right slowly on a grey background"
BLUE = "a large blue square moves left slowly on a grey background"
CLIP = 16  # frames that the detector is shown


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server of the bundled model with room for one session."""
    pyrf = str(Path(sys.executable).with_name("pyrf"))
    command = [pyrf, "serve", "--port", "0", "--threads", "1", "--max-sessions", "1"]
    command += ["--creates-per-minute", "1000", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        greeting = process.stdout.readline()
        found = re.search(r":(\d+)$", greeting.strip())
        assert found is not None, greeting
        yield int(found[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0


@pytest.fixture
def cable(port: int) -> Iterator[Cable]:
    with Cable(port) as cable:
        yield cable


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens the page of a server; afterwards its session is over, and nothing went wrong in the page."""
    visits: list[tuple[str, Visit]] = []

    def open_page(port: int, **context: object) -> Visit:
        url = f"http://127.0.0.1:{port}/"
        visits.append((url, Visit(browser, url, **context)))
        return visits[-1][1]

    yield open_page
    for url, visited in visits:
        if session := visited.session:
            headers = {"Authorization": f"Bearer {session['token']}"}
            httpx.delete(f"{url}v1/sessions/{session['id']}", headers=headers)
        visited.close()
        assert visited.problems == []


def shows(visited: Visit, color: str, shape: str) -> None:
    """Return once the detector sees this on the canvas."""
    for _ in range(20):
        seen = detect(visited.frames(CLIP))
        if (seen.color, seen.shape) == (color, shape):
            return
    raise AssertionError(f"expected a {color} {shape}, saw {seen}")


def test_types_a_prompt_and_sees_the_video_change(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    expect(v.page.locator("#served")).to_contain_text("tiny · torch on cpu")
    expect(v.page.locator("#streams")).to_have_text(
        "3 latent frames a chunk, 9 seen, sink 3, 4 steps, renoise"
    )
    v.picture("idle")
    v.start(RED)
    shows(v, "red", "circle")
    v.picture("live")
    id = v.session["id"]
    v.send(BLUE)
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    shows(v, "blue", "square")
    assert v.session["id"] == id  # the same stream
    figures = v.page.locator("#figures dd")
    for i in range(figures.count()):
        expect(figures.nth(i)).to_have_text(re.compile(r"\d"))
    v.picture("switched")


def test_starts_from_an_image(port: int, visit: Callable[..., Visit], tmp_path: Path) -> None:
    """The person chooses a file; a large one is made smaller. Without it the next stream is as before."""
    image = Scene.sample(Attributes("green", "square", "large", "still", None, "grey"), random.Random(0))
    large = Image.fromarray(image.render(0, 1)[0]).resize((2400, 1600), Image.Resampling.NEAREST)
    noisy = np.asarray(large) ^ np.random.default_rng(0).integers(0, 8, (1600, 2400, 3), np.uint8)
    Image.fromarray(noisy).save(tmp_path / "image.png")
    assert (tmp_path / "image.png").stat().st_size > 524288
    v = visit(port)
    v.await_state("idle")
    expect(v.page.locator("#start")).to_be_hidden()
    v.page.set_input_files("#image", tmp_path / "image.png")
    v.page.select_option("#start", "first_frame")
    with v.page.expect_request("**/v1/sessions") as asked:
        v.start("a large green square")
    body = asked.value.post_data_json
    assert body is not None
    assert (body["start"], body["fit"]) == ("first_frame", "crop")
    assert len(body["image"]) < 4 * 524288 / 3
    shows(v, "green", "square")
    v.picture("image")
    v.page.click("#no-image")
    expect(v.page.locator("#start")).to_be_hidden()
    with v.page.expect_request("**/v1/sessions") as asked:
        v.page.click("#restart")
    assert "image" not in (asked.value.post_data or "")
    v.await_state("live")


def test_a_lost_connection_resumes_the_same_stream(
    port: int, cable: Cable, visit: Callable[..., Visit]
) -> None:
    v = visit(cable.port)
    v.start(RED)
    before, seen = v.session, v.frame
    cable.unplug()
    v.await_state("lost")
    v.picture("lost")
    cable.plug()
    v.await_state("resumed")
    v.picture("resumed")
    assert v.session == before
    assert v.frame > seen
    shows(v, "red", "circle")
    v.await_state("live")
    # An hour later it is lost anew: how long it was gone counts from here.
    v.page.evaluate(
        "() => { const now = performance.now.bind(performance); performance.now = () => now() + 3.6e6; }"
    )
    seen = v.frame
    cable.unplug()
    v.await_state("lost", "ended")
    assert v.page.get_attribute("body", "data-state") == "lost"
    cable.plug()
    v.await_state("resumed")
    assert v.session == before
    assert v.frame > seen
    v.await_state("live")
    v.page.reload()
    v.await_state("resumed")
    assert v.session == before
    headers = {"Authorization": f"Bearer {before['token']}"}
    info = httpx.get(f"http://127.0.0.1:{port}/v1/sessions/{before['id']}", headers=headers).json()
    assert info["state"] == "running"


def test_a_full_server_is_tried_again(port: int, visit: Callable[..., Visit]) -> None:
    server = httpx.Client(base_url=f"http://127.0.0.1:{port}")
    taken = server.post("/v1/sessions", json={"prompt": RED}).json()
    v = visit(port)
    v.send(RED)
    v.await_state("full")
    expect(v.page.locator("#countdown")).to_contain_text(re.compile(r"next try in \d s"))
    v.picture("full")
    with v.page.expect_response("**/v1/sessions") as impatient:
        v.page.press("#prompt", "Enter")
    assert impatient.value.status == 503
    v.await_state("full")
    headers = {"Authorization": f"Bearer {taken['token']}"}
    assert server.delete(f"/v1/sessions/{taken['id']}", headers=headers).status_code == 204
    v.await_state("live")  # by itself


def test_space_pauses_outside_of_the_prompt_box(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    v.page.fill("#prompt", "a blue")
    v.page.press("#prompt", "Space")
    assert v.page.input_value("#prompt") == "a blue "
    assert v.page.get_attribute("body", "data-state") == "live"
    v.page.keyboard.press("Escape")
    v.page.keyboard.press("Space")
    v.await_state("paused")
    v.picture("paused")
    held = v.frame
    v.redraws(30)
    assert v.frame == held
    v.page.keyboard.press("Space")
    v.await_state("live")
    v.until(f"Number(document.getElementById('canvas').dataset.frame) > {held}")


def test_a_recording_holds_what_was_seen(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    v.page.click("#record")
    expect(v.page.locator("#record")).to_have_attribute("aria-pressed", "true")
    v.picture("recording")
    v.frames(24)
    with v.page.expect_download() as download:
        v.page.click("#record")
    with av.open(str(download.value.path())) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    recorded: NDArray[np.uint8] = np.stack(pictures)
    assert recorded.shape[1:] == (64, 96, 3)
    assert len(recorded) >= 16
    assert detect(recorded).color == "red"


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


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
def test_tokens_are_in_no_address(
    serve: Callable[..., Running], visit: Callable[..., Visit], transport: str
) -> None:
    token = "the-servers-own-token"
    running = serve(token=token)
    v = visit(int(running.url.rsplit(":", 1)[1]))
    sockets: list[str] = []
    v.page.on("websocket", lambda socket: sockets.append(socket.url))
    v.await_state("locked")
    v.page.fill("#token", token)
    v.page.keyboard.press("Enter")
    v.await_state("idle")
    v.page.select_option("#transport", transport)
    v.start("a red circle")
    seen = [
        *v.requested,
        *sockets,
        v.page.url,
        v.page.evaluate("JSON.stringify(history.state)"),
        v.page.content(),
    ]
    assert bool(sockets) == (transport == "websocket")
    for secret in (token, v.session["token"]):
        assert not [text for text in seen if secret in text]


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


def test_stop_ends_the_session_and_start_begins_another(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    first = v.session
    v.page.fill("#seed", "7")
    v.page.click("#restart")
    v.until("document.getElementById('seed-shown').textContent === '7'")
    v.await_state("live")
    assert v.session["id"] != first["id"]
    v.page.click("#stop")
    v.await_state("ended")
    v.picture("ended")
    v.start(BLUE)
    shows(v, "blue", "square")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_and_reads_well(port: int, visit: Callable[..., Visit], scheme: str) -> None:
    v = visit(port, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    v.start(RED)
    v.picture(f"phone-{scheme}")
    assert v.page.evaluate("document.documentElement.scrollWidth") == 360
    for control in v.page.locator("button, input, textarea, select").all():
        if box := control.bounding_box():
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
            assert min(box["width"], box["height"]) >= 24
    places = ["h1", "#served", "#prompt", "#send", "#pause", "dt", "dd", "footer p", "#gallery button"]
    places += ["#gallery small", ".group span", ".group button", ".group button[aria-pressed=true]"]
    for place in places:
        assert contrast(v, place) >= 4.5, place
    is_dark = luminance(v, "body", "backgroundColor") < 0.5
    assert is_dark == (scheme == "dark")


def contrast(visited: Visit, selector: str) -> float:
    """Of an element's text with what lies behind it (WCAG 2.2, 1.4.3)."""
    text = luminance(visited, selector, "color")
    ground = luminance(visited, selector, "backgroundColor")
    return (max(text, ground) + 0.05) / (min(text, ground) + 0.05)


def luminance(visited: Visit, selector: str, role: str) -> float:
    """Relative luminance of a colour of an element, or of what it stands on where it has none."""
    seen = visited.page.locator(selector).first.evaluate(
        """(element, role) => {
          for (let e = element; e; e = e.parentElement) {
            const color = getComputedStyle(e)[role];
            if (color !== "rgba(0, 0, 0, 0)") return color;
          }
        }""",
        role,
    )
    rgb = np.array([int(part) for part in re.findall(r"\d+", seen)[:3]]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_loads_nothing_from_elsewhere(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    own = f"http://127.0.0.1:{port}/"
    assert [url for url in v.requested if not url.startswith((own, f"blob:{own}"))] == []
    policy = httpx.get(own).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert httpx.get(f"{own}static/../settings.py").status_code == 404
    assert httpx.get(f"{own}static/settings.py").status_code == 404


def test_a_server_with_a_token_asks_for_it(
    serve: Callable[..., Running], visit: Callable[..., Visit]
) -> None:
    running = serve(token="secret")
    v = visit(int(running.url.rsplit(":", 1)[1]))
    v.await_state("locked")
    v.picture("locked")
    v.page.fill("#token", "wrong")
    v.page.keyboard.press("Enter")
    expect(v.page.locator("#problem")).not_to_be_empty()
    v.page.fill("#token", "secret")
    v.page.keyboard.press("Enter")
    v.await_state("idle")
    v.start("a red circle")


def test_a_refused_prompt_says_why_and_the_stream_goes_on(
    serve: Callable[..., Running], visit: Callable[..., Visit]
) -> None:
    running = serve(controls_per_second=0.01)
    v = visit(int(running.url.rsplit(":", 1)[1]))
    v.start("a red circle")
    v.send("a blue square")
    v.send("a green square")
    expect(v.page.locator("#problem")).to_contain_text("controls a second")
    seen = v.frame
    v.until(f"Number(document.getElementById('canvas').dataset.frame) > {seen}")


def test_a_server_that_shuts_down_says_so(serve: Callable[..., Running], visit: Callable[..., Visit]) -> None:
    running = serve()
    v = visit(int(running.url.rsplit(":", 1)[1]))
    v.start("a red circle")
    running.run(running.registry.drain())
    v.await_state("ended")
    expect(v.page.locator("#state")).to_contain_text("the server shuts down")


def test_the_page_tells_what_the_model_lacks(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    page, notices = v.page, v.page.locator("#notices")
    expect(page.locator("#model-limits li").first).to_contain_text("one shape per prompt")
    page.locator("summary").click()
    expect(page.locator("#vocabulary")).to_contain_text("bounces")
    expect(notices).to_be_hidden()
    v.start("a gray circle <b>\U0001f388</b>")
    expect(notices).to_be_visible()
    expect(notices.locator("li")).to_contain_text("'gray' (near: 'grey')")
    expect(notices.locator("li")).to_contain_text("'\U0001f388'")
    v.send(RED)
    expect(notices).to_be_hidden()
    v.send("a pink circle")
    expect(notices).to_be_visible()
    expect(notices.locator("li")).to_contain_text("'pink'")


def chip(visited: Visit, phrase: str) -> Locator:
    return visited.page.locator("#choices").get_by_role("button", name=phrase, exact=True)


def picked(visited: Visit) -> list[str]:
    return visited.page.locator("#choices button[aria-pressed=true]").all_text_contents()


def test_chips_write_the_prompt(port: int, visit: Callable[..., Visit]) -> None:
    """One of a group or none, in the order of the groups; what is written beside them stays."""
    v = visit(port)
    v.await_state("idle")
    assert picked(v) == ["large", "red", "circle", "moves right", "slowly", "on a grey background"]
    v.page.fill("#prompt", "")
    assert picked(v) == []
    for phrase in ("bounces", "circle", "blue"):
        chip(v, phrase).click()
    expect(v.page.locator("#prompt")).to_have_value("blue, circle, bounces")
    chip(v, "green").focus()
    v.page.keyboard.press("Enter")
    expect(v.page.locator("#prompt")).to_have_value("green, circle, bounces")
    chip(v, "circle").click()
    expect(v.page.locator("#prompt")).to_have_value("green, bounces")
    assert picked(v) == ["green", "bounces"]
    v.page.fill("#prompt", "A Green ball that bounces, greenish")
    assert picked(v) == ["green", "bounces"]
    chip(v, "white").click()
    chip(v, "slowly").click()
    expect(v.page.locator("#prompt")).to_have_value("A white ball that bounces, greenish, slowly")
    v.page.fill("#prompt", "a whitewashed ball, slowly")
    assert picked(v) == ["slowly"]
    chip(v, "slowly").click()
    expect(v.page.locator("#prompt")).to_have_value("a whitewashed ball")
    assert v.page.get_attribute("body", "data-state") == "idle"  # nothing started by itself


def test_chips_change_a_stream_at_once(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    id, top = v.session["id"], v.page.locator("#gallery").bounding_box()
    chip(v, "blue").click()
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    shows(v, "blue", "circle")
    assert v.session["id"] == id
    assert v.page.locator("#gallery").bounding_box() == top  # nothing on the page has moved
    chip(v, "square").click()
    shows(v, "blue", "square")
    assert v.page.url.endswith("#prompt=a+large+blue+square+moves+right+slowly+on+a+grey+background&seed=0")


def test_a_chip_pressed_before_there_is_a_connection_counts(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    v.page.evaluate(
        """() => {
          document.getElementById("send").click();
          const chips = [...document.querySelectorAll("#choices button")];
          chips.find(({ textContent }) => textContent === "blue").click();
        }"""
    )
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    shows(v, "blue", "circle")


def test_a_surprise_starts_a_stream_and_changes_it(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    v.page.evaluate("Math.random = () => 0.99")
    v.page.click("#surprise")
    expect(v.page.locator("#prompt")).to_have_value(
        "large, white, triangle, stays still, fast, on a teal background"
    )
    v.await_state("live")
    expect(v.page.locator("#seed-shown")).to_have_text("99000")
    shows(v, "white", "triangle")
    id = v.session["id"]
    v.page.evaluate("Math.random = () => 0")
    v.page.click("#surprise")
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    assert picked(v) == ["small", "red", "circle", "moves right", "slowly", "on a grey background"]
    shows(v, "red", "circle")
    assert v.session["id"] == id


def test_the_gallery_starts_its_prompt_with_its_seed(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    expect(v.page.locator("#examples")).to_be_hidden()
    v.page.get_by_role("button", name="a large white triangle bounces on a black background").click()
    v.await_state("live")
    expect(v.page.locator("#seed-shown")).to_have_text("1")
    assert picked(v) == ["large", "white", "triangle", "bounces", "on a black background"]
    shows(v, "white", "triangle")
    first = v.session
    v.page.get_by_role("button", name="a blue square bounces").click()
    v.until("document.getElementById('seed-shown').textContent === '0'")
    shows(v, "blue", "square")
    assert v.session != first


def test_a_link_fills_in_what_it_was_made_of(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port, permissions=["clipboard-read", "clipboard-write"])
    v.await_state("idle")
    prompt = "a blue square, 100 % & more = #\U0001f388"
    v.page.fill("#prompt", prompt)
    v.page.fill("#seed", "1234")
    v.page.click("#share")
    expect(v.page.locator("#copied")).to_have_text("Link copied")
    link = v.page.evaluate("navigator.clipboard.readText()")
    assert link == v.page.url
    other = visit(port)
    other.page.goto(link)
    other.page.reload()
    other.await_state("idle")
    expect(other.page.locator("#prompt")).to_have_value(prompt)
    expect(other.page.locator("#seed")).to_have_value("1234")
    assert picked(other) == ["blue", "square"]
    other.redraws(30)
    assert other.page.get_attribute("body", "data-state") == "idle"
    assert other.session == {}
    other.page.click("#send")
    other.await_state("live")
    expect(other.page.locator("#seed-shown")).to_have_text("1234")
    other.page.reload()
    other.await_state("resumed", "live")
    expect(other.page.locator("#prompt")).to_have_value(prompt)


def test_without_a_clipboard_the_address_is_the_link(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    v.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    v.page.fill("#prompt", "a red circle")
    v.page.click("#share")
    expect(v.page.locator("#copied")).to_have_text("Copy this page's address")
    assert v.page.url.endswith("/#prompt=a+red+circle&seed=0")


@pytest.mark.parametrize(
    "fragment",
    [
        "prompt=%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'x'%22%3E&seed=1e3",
        "prompt=%3C%2Ftextarea%3E%3Cscript%3Edocument.title%3D'x'%3C%2Fscript%3E&seed=-1",
        "prompt=javascript:document.title%3D'x'&seed=99999999999999999999",
        "prompt=%E0%A4%A&seed=%00",
        f"prompt={'a' * 9000}&seed=9007199254740993",
    ],
)
def test_a_hostile_link_is_text(port: int, visit: Callable[..., Visit], fragment: str) -> None:
    v = visit(port)
    v.page.goto(f"{v.page.url}#{fragment}")
    v.page.reload()
    v.await_state("idle")
    given = parse_qs(fragment)["prompt"][0]
    expect(v.page.locator("#prompt")).to_have_value(given[:2000])
    expect(v.page.locator("#seed")).to_have_value("0")
    v.page.click("#send")
    v.await_state("live")
    v.redraws(10)
    assert v.page.title() == "pyrf"
    assert v.page.locator("img, main script").count() == 0


def test_a_cards_words_are_text(
    pipe: StreamingPipeline,
    serve: Callable[..., Running],
    visit: Callable[..., Visit],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And phrases of signs that mean something in a pattern are found as they stand."""
    bad = "<img src=x onerror=\"document.title='x'\">"
    card = Card(choices={bad[:40]: (f"{bad} (a|b)+ [", "$& \\d", "plain")}, gallery=(Shown(bad, 3),))
    monkeypatch.setattr(pipe, "model", replace(pipe.model, card=card))
    v = visit(int(serve().url.rsplit(":", 1)[1]))
    v.await_state("idle")
    expect(v.page.locator("#gallery button")).to_contain_text(bad)
    expect(v.page.locator(".group span")).to_have_text(bad[:40])
    v.page.fill("#prompt", "")
    for phrase in (f"{bad} (a|b)+ [", "$& \\d"):
        v.page.locator("#choices button", has_text=phrase).click()
        expect(v.page.locator("#prompt")).to_have_value(phrase)
        assert picked(v) == [phrase]
    assert v.page.title() == "pyrf"
    assert v.page.locator("img").count() == 0


def test_a_model_that_offers_nothing_has_examples(
    serve: Callable[..., Running], visit: Callable[..., Visit]
) -> None:
    v = visit(int(serve().url.rsplit(":", 1)[1]))
    v.await_state("idle")
    for absent in ("#choices", "#surprise", "#gallery"):
        expect(v.page.locator(absent)).to_be_hidden()
    second = v.page.locator("#examples button").nth(1)
    second.click()
    expect(v.page.locator("#prompt")).to_have_value(second.text_content() or "")
    expect(v.page.locator("#problem")).to_contain_text("words")  # it was sent, and is too long for this model
