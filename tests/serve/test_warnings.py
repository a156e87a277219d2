"""A server tells what its model knows, and what it lacks of each prompt that it takes."""

import json
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from pyrf.client import Client
from pyrf.pipeline import StreamingPipeline
from pyrf.protocol import MESSAGE, WARNINGS_HEADER, PromptMessage
from pyrf.serve.settings import ServeSettings
from tests.support.running import ROOMY, Running

KNOWN, PINK = "a red circle", "a pink circle 🎈"


@pytest.fixture(scope="module")
def told() -> Iterator[Running]:
    """A server of the bundled model."""
    pipe = StreamingPipeline.from_pretrained("tiny")
    with Running(pipe, ServeSettings(max_pixels=96 * 96, **ROOMY)) as server:
        yield server


def test_what_the_model_knows(told: Running) -> None:
    info = told.http.get("/v1/model").json()
    assert "circle" in info["vocabulary"]
    assert "star" in info["unlearned"]
    assert info["sizes"] == [[64, 96]]
    assert any("count" in limit for limit in info["model_limits"])
    assert list(info["choices"]) == ["size", "color", "shape", "motion", "speed", "background"]
    assert info["choices"]["shape"] == ["circle", "square", "triangle"]
    assert {"prompt": "a blue square bounces", "seed": 0} in info["gallery"]
    with Client(told.url) as client:
        found = client.server_info()
    assert found.vocabulary == info["vocabulary"]
    assert found.choices == info["choices"]
    assert [shown.model_dump() for shown in found.gallery] == info["gallery"]


def test_a_new_session(told: Running) -> None:
    for prompt, count in ((KNOWN, 0), (PINK, 1)):
        reply = told.http.post("/v1/sessions", json={"prompt": prompt}).json()
        assert len(reply["warnings"]) == count
    assert "'pink'" in reply["warnings"][0]
    reply = told.http.post("/v1/sessions", json={"prompt": KNOWN, "height": 32, "width": 48}).json()
    assert "32 x 48" in reply["warnings"][0]


def test_a_new_prompt(told: Running) -> None:
    with Client(told.url) as client, client.create_session(PINK) as session:
        assert "'pink'" in session.created.warnings[0]
        assert session.set_prompt(KNOWN).warnings == []
        assert "'dark'" in session.set_prompt("a dark circle").warnings[0]


def test_a_viewers_prompt(told: Running) -> None:
    made = told.http.post("/v1/sessions", json={"prompt": KNOWN}).json()
    url = f"{told.url.replace('http', 'ws')}/v1/sessions/{made['id']}/ws"
    with connect(url, additional_headers={"Authorization": f"Bearer {made['token']}"}) as socket:
        socket.send(json.dumps({"type": "prompt", "prompt": PINK, "ref": 7}))
        while True:
            message = socket.recv()
            if isinstance(message, str) and isinstance(
                reply := MESSAGE.validate_json(message), PromptMessage
            ):
                break
    assert reply.ref == 7
    assert "'pink'" in reply.warnings[0]
    assert "\U0001f388" in reply.warnings[0]


def test_a_clip(told: Running) -> None:
    for prompt, count in ((KNOWN, 0), (PINK, 1)):
        reply = told.http.post("/v1/videos", json={"prompt": prompt, "num_frames": 1})
        assert len(json.loads(reply.headers.get(WARNINGS_HEADER, "[]"))) == count
    heard: list[str] = []
    with Client(told.url) as client:
        assert b"".join(client.video(PINK, 1, on_warnings=heard.extend))
    assert "\U0001f388" in heard[0]


def test_a_server_prints_none_of_it(told: Running, recwarn: pytest.WarningsRecorder) -> None:
    with Client(told.url) as client, client.create_session(PINK) as session:
        session.set_prompt("a dark circle")
        next(iter(session))
    assert not [one for one in recwarn if "dark" in str(one.message) or "pink" in str(one.message)]
