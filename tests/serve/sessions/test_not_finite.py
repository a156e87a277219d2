"""A session whose values are no longer finite ends with a code of its own; the others go on."""

from pathlib import Path

import pytest
import torch
from websockets.exceptions import ConnectionClosed

from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from tests.support.running import ROOMY, Running, close_of, read, read_frames, read_until


def test_only_that_session_ends(random_bundle: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    with Running(pipe, ServeSettings(**ROOMY)) as server:
        bad, good = (server.create(pace="max") for _ in range(2))

        def damage() -> None:
            with server.session(bad).stream.computing() as state:
                assert state is not None
                state.loop.draw = lambda: torch.full((1, *state.rollout.shape), float("nan"))

        server.call(damage)
        with server.attach(good) as watched, server.attach(bad) as socket:
            closing = read_until(socket, "closing")
            assert closing.reason == "not_finite"
            assert "infinite or not a number" in closing.message
            with pytest.raises(ConnectionClosed) as closed:
                read(socket)
            assert close_of(closed).code == 4500
            read_frames(watched, 60)
            assert server.session(good) is not None
            assert server.session(bad) is None


def test_a_clip_is_refused(random_bundle: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    with Running(pipe, ServeSettings(**ROOMY)) as server:
        with torch.no_grad():
            pipe.model.backend.model.head.head.bias[0] = float("nan")  # type: ignore[attr-defined]
        reply = server.http.post("/v1/videos", json={"prompt": "a red circle", "num_frames": 4})
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "not_finite"
