"""What an operator puts on every frame, by each way to a viewer."""

from __future__ import annotations

import asyncio
import io

import av
import numpy as np
import pytest

from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from pyrf.video import Watermark
from tests.serve.transports.test_webrtc import Peer
from tests.support.running import PROMPT, ROOMY, TIMEOUT, Running, read, read_frames

MARK = "AI"


def test_every_way_out_shows_it(pipe: StreamingPipeline) -> None:
    """Raw frames exactly; a clip and a peer within what H.264 and VP8 lose."""
    with pipe.stream(PROMPT, seed=3) as stream:
        plain = np.concatenate([next(stream).frames for _ in range(2)])[:12]
    expected = Watermark(MARK).on(plain)
    assert (expected != plain).any()
    with Running(pipe, ServeSettings(watermark=MARK, **ROOMY)) as server:
        created = server.create(seed=3, pace="max")
        with server.attach(created) as viewer:
            read(viewer)
            got = [np.frombuffer(pixels, np.uint8) for _, pixels in read_frames(viewer, 12)]
        server.delete(created)
        assert np.array_equal(np.stack(got).reshape(plain.shape), expected)

        clip = server.http.post("/v1/videos", json={"prompt": PROMPT, "seed": 3, "num_frames": 12})
        with av.open(io.BytesIO(clip.content), "r") as container:
            shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert_shows(shown, expected, plain)

        created = server.create(seed=3)

        async def watch() -> np.ndarray:
            peer = Peer()
            await peer.offer(server, created)
            track = await peer.track
            frames = [(await track.recv()).to_ndarray(format="rgb24") for _ in range(12)]
            await peer.connection.close()
            return np.stack(frames)

        assert_shows(asyncio.run(asyncio.wait_for(watch(), TIMEOUT)), expected, plain)
        server.delete(created)


def assert_shows(shown: np.ndarray, expected: np.ndarray, plain: np.ndarray) -> None:
    """The mean frame is nearer to the marked one than to the plain one, where these differ."""
    seen, marked, without = (frames.mean(0) for frames in (shown, expected, plain))
    where = np.abs(marked - without) > 30
    assert where.any()
    assert np.abs(seen - marked)[where].mean() < 0.5 * np.abs(seen - without)[where].mean()


def test_a_bad_mark_is_refused_before_the_server_starts() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.png: there is no such file"):
        ServeSettings(watermark="nowhere.png")
