"""Prompts that a language model writes out, and prompts and frames that moderation refuses."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest

from pyrf.client import Client
from pyrf.pipeline import StreamingPipeline
from pyrf.protocol import WARNINGS_HEADER
from pyrf.serve.errors import ServeError
from pyrf.serve.sessions import gate
from pyrf.serve.settings import ServeSettings
from tests.support.chat_endpoint import as_chat, as_verdict, chat_endpoint
from tests.support.running import BLUE, PROMPT, ROOMY, Running, read_until

Serve = Callable[..., Running]


def longer(_: str, body: Any) -> tuple[int, bytes]:
    return as_chat(f"{body['messages'][-1]['content']} at dusk")


def test_prompts_are_written_out_and_shown(serve: Serve) -> None:
    with chat_endpoint(longer) as endpoint:
        server = serve(expand=endpoint.url, expand_model="small")
        created = server.create(PROMPT)
        assert created["expanded"] == f"{PROMPT} at dusk"
        assert server.session(created).stream.prompt == f"{PROMPT} at dusk"
        with server.attach(created) as viewer:
            reply = server.post(created, "/prompt", prompt=BLUE).json()
            assert reply["expanded"] == f"{BLUE} at dusk"
            assert read_until(viewer, "prompt").expanded == f"{BLUE} at dusk"
            viewer.send(json.dumps({"type": "prompt", "prompt": PROMPT}))
            assert read_until(viewer, "prompt").expanded == f"{PROMPT} at dusk"
            blend = server.post(created, "/prompt", prompt={PROMPT: 1.0, BLUE: 1.0}).json()
            assert blend["expanded"] is None
        assert len(endpoint.asked) == 2  # the third was known already
        with Client(server.url) as client, client.create_session(BLUE) as session:
            assert session.created.expanded == f"{BLUE} at dusk"
        server.delete(created)


def test_a_clip_tells_what_it_shows(serve: Serve) -> None:
    with chat_endpoint(longer) as endpoint:
        server = serve(expand=endpoint.url)
        reply = server.http.post("/v1/videos", json={"prompt": PROMPT, "num_frames": 9})
    assert json.loads(reply.headers[WARNINGS_HEADER]) == [f"the prompt is shown as: {PROMPT} at dusk"]
    with av.open(io.BytesIO(reply.content)) as container:
        assert json.loads(container.metadata["comment"])["prompt"] == f"{PROMPT} at dusk"


@pytest.mark.parametrize("answer", [(500, b""), as_chat("word " * 390)])
def test_a_failure_keeps_the_prompt_and_says_so(serve: Serve, answer: tuple[int, bytes]) -> None:
    """The second text is longer than the model reads."""
    with chat_endpoint(lambda *_: answer) as endpoint:
        server = serve(expand=endpoint.url)
        created = server.create(PROMPT)
        assert created["expanded"] is None
        assert created["warnings"] == [gate.NOT_EXPANDED]  # and no word of the endpoint's address
        assert server.session(created).stream.prompt == PROMPT
        server.delete(created)


def test_an_endpoint_that_hangs_costs_its_time_out_alone(serve: Serve) -> None:
    with chat_endpoint(longer) as endpoint:
        endpoint.held.clear()
        server = serve(expand=endpoint.url, endpoint_timeout_s=0.3)
        created = server.create(PROMPT)
        assert created["warnings"] == [gate.NOT_EXPANDED]
        server.delete(created)


def test_without_an_endpoint_nothing_is_asked(server: Running) -> None:
    created = server.create(PROMPT)
    assert created["expanded"] is None
    assert created["warnings"] == []
    server.delete(created)


def test_refused_prompts_show_nothing(serve: Serve) -> None:
    def answer(_: str, body: Any) -> tuple[int, bytes]:
        return as_verdict("blue" in body["input"], violence="blue" in body["input"])

    with chat_endpoint(answer) as endpoint:
        server = serve(moderate=endpoint.url)
        later = [{"at": 0.5, "prompt": BLUE}]
        for path, body in (
            ("/v1/sessions", {"prompt": BLUE}),
            ("/v1/sessions", {"prompt": {PROMPT: 1.0, BLUE: 1.0}}),
            ("/v1/videos", {"prompt": PROMPT, "num_frames": 33, "timeline": later}),
        ):
            reply = server.http.post(path, json=body)
            assert reply.status_code == 422
            assert reply.json()["error"]["code"] == "refused"
            assert "violence" in reply.json()["error"]["message"]
        assert server.http.get("/v1/model").json()["sessions"] == 0
        created = server.create(PROMPT)
        reply = server.post(created, "/prompt", prompt=BLUE)
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "refused")
        assert server.session(created).newest_prompt_id == 0  # the stream goes on as it was
        with server.attach(created) as viewer:
            viewer.send(json.dumps({"type": "prompt", "prompt": BLUE, "ref": 7}))
            error = read_until(viewer, "error")
            assert (error.ref, error.error.code) == (7, "refused")
        server.delete(created)


def test_what_a_language_model_writes_is_moderated_too(serve: Serve) -> None:
    def answer(path: str, body: Any) -> tuple[int, bytes]:
        return as_chat(BLUE) if path.endswith("completions") else as_verdict(body["input"] == BLUE)

    with chat_endpoint(answer) as endpoint:
        server = serve(expand=endpoint.url, moderate=endpoint.url)
        reply = server.http.post("/v1/sessions", json={"prompt": PROMPT})
    assert reply.json()["error"]["code"] == "refused"


def test_no_verdict_is_no_permission(serve: Serve) -> None:
    with chat_endpoint(lambda *_: (500, b"")) as endpoint:
        reply = serve(moderate=endpoint.url).http.post("/v1/sessions", json={"prompt": PROMPT})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "no_verdict")
    assert endpoint.url not in reply.text


def test_a_refused_frame_ends_the_session(pipe: StreamingPipeline) -> None:
    """By a hook in Python, which sees a prompt, and a frame of every second chunk."""
    seen: list[Any] = []

    def moderate(subject: Any) -> str | None:
        seen.append(subject)
        frames = [one for one in seen if isinstance(one, np.ndarray)]
        return "a test" if len(frames) == 2 else None

    settings = ServeSettings(moderate_chunks=2, **ROOMY)
    with Running(pipe, settings, moderate=moderate) as server:
        created = server.create(PROMPT, pace="max")
        with server.attach(created) as viewer:
            closing = read_until(viewer, "closing")
        assert closing.reason == "refused"
    prompt, *frames = seen
    assert prompt == PROMPT
    assert {(frame.shape, frame.dtype) for frame in frames} == {
        ((pipe.height, pipe.width, 3), np.dtype("u1"))
    }


def test_a_hook_that_fails_refuses(pipe: StreamingPipeline) -> None:
    def moderate(_: Any) -> str | None:
        raise RuntimeError("a fault of the hook")

    with Running(pipe, ServeSettings(**ROOMY), moderate=moderate) as server:
        reply = server.http.post("/v1/sessions", json={"prompt": PROMPT})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "no_verdict")


def test_only_some_calls_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_WAITING", 2)

    async def main() -> None:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        def moderate(_: Any) -> None:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

        one, model = gate.Gate(ServeSettings(), moderate), cast(Any, SimpleNamespace(expander=None))
        waiting = [asyncio.create_task(one.take(text, model)) for text in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(ServeError, match="too many prompts"):
            await one.take("c", model)
        release.set()
        assert [given.prompt for given in await asyncio.gather(*waiting)] == ["a", "b"]
        assert (await one.take("c", model)).prompt == "c"
        one.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"expand": "nowhere"}, "expand must be the base URL"),
        ({"moderate": "ftp://a"}, "moderate must be the base URL"),
        ({"moderate_chunks": -1}, "moderate_chunks"),
        ({"endpoint_timeout_s": 0}, "endpoint_timeout_s"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ServeSettings(**settings)
