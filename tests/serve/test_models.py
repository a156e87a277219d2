"""Several models in one server: each session has the one that it chose, and limits hold over all."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from safetensors.torch import save_file

from pyrf.client import AsyncClient, Client, RefusedError
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.app import create_app
from pyrf.serve.settings import ServeSettings
from tests.serve.test_limits import error_of
from tests.serve.test_operations import figures
from tests.support import adapters
from tests.support.api_keys import add_key, bearing
from tests.support.other_model import CARD, HEIGHT, WIDTH, other_pipe
from tests.support.running import BLUE, PROMPT, ROOMY, Running, read, read_frames, read_until

UNKNOWN = "there is no model 'third'; there are: random, other"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> StreamingPipeline:
    return other_pipe(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def both(pipe: StreamingPipeline, other: StreamingPipeline) -> Iterator[Running]:
    with Running(pipe, ServeSettings(**ROOMY, max_pixels=10**6), others={"other": other}) as running:
        yield running


@pytest.fixture
def limited(pipe: StreamingPipeline, other: StreamingPipeline) -> Iterator[Callable[..., Running]]:
    """Starts servers of both with settings of their own."""
    started: list[Running] = []

    def start(**settings: Any) -> Running:
        running = Running(pipe, ServeSettings(**{**ROOMY, **settings}), others={"other": other})
        started.append(running.__enter__())
        return running

    yield start
    for running in started:
        running.__exit__()


def first_frames(pipe: StreamingPipeline) -> np.ndarray:
    with pipe.stream(PROMPT, seed=3) as stream:
        return np.concatenate([next(stream).frames for _ in range(2)])


def test_each_session_has_the_model_that_it_chose(
    both: Running, pipe: StreamingPipeline, other: StreamingPipeline
) -> None:
    for model, name, shown in ((None, "random", pipe), ("random", "random", pipe), ("other", "other", other)):
        chosen = {} if model is None else {"model": model}
        created = both.create(seed=3, pace="max", **chosen)
        assert (created["model"], created["height"], created["width"]) == (name, shown.height, shown.width)
        expected = first_frames(shown)
        with both.attach(created) as socket:
            assert read(socket).session.model == name
            frames = read_frames(socket, len(expected))
        seen = [np.frombuffer(pixels, np.uint8).reshape(expected.shape[1:]) for _, pixels in frames]
        assert np.array_equal(np.stack(seen), expected)
        both.delete(created)


def test_viewers_of_different_models_are_served_at_once(both: Running) -> None:
    """With one frame size: what is computed together has one model."""
    sessions = [
        both.create(pace="max", height=HEIGHT, width=WIDTH, model=model) for model in ("random", "other") * 2
    ]
    with ExitStack() as stack:
        sockets = [stack.enter_context(both.attach(created)) for created in sessions]
        for _ in range(3):
            assert all(len(read_frames(socket, 12)) == 12 for socket in sockets)
    for created in sessions:
        both.delete(created)


def test_an_unknown_model_is_refused_with_the_known_ones(both: Running) -> None:
    for reply in (
        both.http.post("/v1/sessions", json={"prompt": PROMPT, "model": "third"}),
        both.http.post("/v1/videos", json={"prompt": PROMPT, "model": "third"}),
        both.http.get("/v1/model", params={"model": "third"}),
    ):
        error = error_of(reply, 422)
        assert (error["code"], error["message"]) == ("bad_model", UNKNOWN)
    long = both.http.get("/v1/model", params={"model": "x" * 5000})
    assert len(error_of(long, 422)["message"]) < 200


def test_what_is_told_of_them(both: Running) -> None:
    assert both.http.get("/v1/model").json()["model"] == "random"
    assert both.http.get("/v1/model").json()["vocabulary"] == []
    told = both.http.get("/v1/model", params={"model": "other"}).json()
    assert (told["model"], told["models"], told["height"]) == ("other", ["random", "other"], HEIGHT)
    assert told["vocabulary"] == list(CARD.vocabulary)
    first, second = both.http.get("/v1/models").json()["models"]
    assert (first["name"], first["default"], first["words"]) == ("random", True, 0)
    assert second == {
        "name": "other",
        "default": False,
        "fps": 16.0,
        "height": HEIGHT,
        "width": WIDTH,
        "sizes": [[HEIGHT, WIDTH]],
        "words": len(CARD.vocabulary),
        "choices": ["colour"],
        "model_limits": ["It shows noise."],
    }


def test_a_clip_has_its_model(both: Running) -> None:
    """Its size and its later prompts are checked by that model too."""
    body = {"prompt": PROMPT, "num_frames": 21, "model": "other"}
    timeline = [{"at": 0.5, "prompt": BLUE}]
    made = both.http.post("/v1/videos", json={**body, "timeline": timeline})
    assert made.status_code == 200, made.text
    with av.open(io.BytesIO(made.content)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (HEIGHT, WIDTH)
        assert '"other"' in str(container.metadata)
    told = both.http.post("/v1/videos", json={**body, "timeline": [{"at": 0.5, "prompt": "a green square"}]})
    assert "green" in told.headers["pyrf-warnings"]  # its card has no such word; the other model has no card
    body["model"] = "random"
    plain = both.http.post("/v1/videos", json={**body, "timeline": [{"at": 0.5, "prompt": "a green square"}]})
    assert "pyrf-warnings" not in plain.headers


def test_prompts_are_looked_at_by_the_sessions_model(both: Running) -> None:
    for model, warned in (("random", False), ("other", True)):
        created = both.create("a green square", model=model)
        assert bool(created["warnings"]) is warned
        assert bool(both.post(created, "/prompt", prompt="a green circle").json()["warnings"]) is warned
        both.delete(created)


def test_limits_hold_over_all_models(limited: Callable[..., Running]) -> None:
    server = limited(max_sessions=3, max_sessions_per_address=2)
    created = [server.create(model=model) for model in ("random", "other")]
    for model in ("random", "other"):
        refused = server.http.post("/v1/sessions", json={"prompt": PROMPT, "model": model})
        assert error_of(refused, 429)["code"] == "quota"
        assert server.http.get("/v1/model", params={"model": model}).json()["sessions"] == 2
    server.delete(created[1])
    created[1] = server.create(model="random")
    for one in created:
        server.delete(one)
    full = limited(max_sessions=1)
    full.create(model="other")
    refused = full.http.post("/v1/sessions", json={"prompt": PROMPT})
    assert error_of(refused, 503)["code"] == "full"


def test_quotas_and_admins_see_all_models(limited: Callable[..., Running], tmp_path: Any) -> None:
    file = tmp_path / "keys.yaml"
    studio, ops = add_key(file, "studio", sessions=2), add_key(file, "ops", may=("admin",))
    server = limited(keys=str(file))

    def begin(model: str) -> Any:
        body = {"prompt": PROMPT, "model": model}
        return server.http.post("/v1/sessions", json=body, headers=bearing(studio))

    assert [begin(model).status_code for model in ("other", "random", "other")] == [201, 201, 429]
    assert error_of(server.http.get("/v1/models"), 401)
    overview = server.http.get("/v1/admin/sessions", headers=bearing(ops)).json()
    assert [one["model"] for one in overview["sessions"]] == ["other", "random"]
    server.http.post("/v1/admin/drain", headers=bearing(ops))
    assert [error_of(begin(model), 503)["code"] for model in ("random", "other")] == ["draining"] * 2


def test_figures_are_told_by_model(limited: Callable[..., Running]) -> None:
    server = limited()
    sessions = [server.create(model=model, pace="max") for model in ("random", "other", "other")]
    with server.attach(sessions[1]) as socket:
        read_frames(socket, 12)
        found = figures(server)
    assert found["pyrf_sessions_started_total", "random"] == 1
    assert found["pyrf_sessions_started_total", "other"] == 2
    assert found["pyrf_frames_total", "other"] >= 12
    assert found["pyrf_chunk_seconds_count", "other"] >= 2
    assert found["pyrf_sessions", "other running"] == 1
    assert found["pyrf_sessions", "other detached"] == 1
    assert found["pyrf_sessions", "random detached"] == 1


def test_adapters_are_of_one_model(other: StreamingPipeline, random_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "ink.safetensors"
    save_file(adapters.keys("comfy", adapters.factors()), file)
    inked = StreamingPipeline.from_pretrained(str(random_bundle), adapters=[(file, 0.5)])
    settings = ServeSettings(**ROOMY, shared_adapters=True)
    with Running(inked, settings, others={"other": other}) as server:
        told = [server.http.get("/v1/model", params={"model": name}).json() for name in ("random", "other")]
        assert [len(one["adapters"]) for one in told] == [1, 0]
        first, second, plain = [server.create(model=name) for name in ("random", "random", "other")]
        with server.attach(second) as hears, server.attach(plain) as hears_nothing:
            reply = server.post(first, "/adapters", strengths={"ink": 1.0})
            assert reply.json()["strengths"] == {"ink": 1.0}
            assert read_until(hears, "adapters").strengths == {"ink": 1.0}
            refused = server.post(plain, "/adapters", strengths={"ink": 1.0})
            assert error_of(refused, 422)["code"] == "bad_adapter"
            server.post(plain, "/prompt", prompt=BLUE)
            kinds = []
            while "prompt" not in kinds:
                message = read(hears_nothing)
                kinds += [] if isinstance(message, tuple) else [message.type]
            assert kinds == ["hello", "prompt"]


def test_the_client_chooses(both: Running) -> None:
    with Client(both.url) as client:
        assert [(one.name, one.default) for one in client.models()] == [("random", True), ("other", False)]
        assert client.server_info().model == "random"
        assert client.server_info("other").height == HEIGHT
        with client.create_session(PROMPT, model="other", pace="max") as session:
            assert session.created.model == session.info().model == "other"
            assert next(iter(session)).pixels.shape == (HEIGHT, WIDTH, 3)
        with av.open(io.BytesIO(b"".join(client.video(PROMPT, 9, model="other")))) as container:
            assert container.streams.video[0].height == HEIGHT
        with pytest.raises(RefusedError, match=UNKNOWN) as refused:
            client.create_session(PROMPT, model="third")
        assert refused.value.code == "bad_model"

    async def main() -> None:
        async with AsyncClient(both.url) as asked:
            assert len(await asked.models()) == 2
            async with await asked.create_session(PROMPT, model="other") as session:
                assert session.created.model == "other"

    asyncio.run(main())


def test_two_models_have_two_names(pipe: StreamingPipeline) -> None:
    with pytest.raises(ValueError, match="two models are called 'a'"):
        create_app(lambda: pipe, model="a", others={"a": lambda: pipe})
