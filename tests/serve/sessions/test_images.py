"""Sessions and clips that start from an image which a viewer sends."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pyrf.client import AsyncClient, Client
from pyrf.client.errors import BadArgumentError, RefusedError
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.sessions.images import decode_image
from pyrf.video.writer import Frames
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.running import PROMPT, Running, read_frames

PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


PNG = text_of(file_of(Image.fromarray(PICTURE)))


@pytest.mark.parametrize("start", [None, "still", "first_frame"])
def test_a_session_shows_what_the_pipeline_makes(
    server: Running, pipe: StreamingPipeline, start: Any
) -> None:
    created = server.create(seed=6, pace="max", image=PNG, start=start)
    with server.attach(created) as socket:
        frames = read_frames(socket, 24)
    server.delete(created)
    shown = np.stack([np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 3) for _, data in frames])
    assert np.array_equal(shown, pipe(PROMPT, num_frames=24, seed=6, image=PICTURE, start=start).frames)


def test_the_client_sends_every_kind_of_image(
    server: Running, pipe: StreamingPipeline, tmp_path: Path
) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "image.png")
    expected = pipe(PROMPT, num_frames=1, seed=6, image=PICTURE).frames[0]
    with Client(server.url) as client:
        for image in (PICTURE, Image.fromarray(PICTURE), tmp_path / "image.png", base64.b64decode(PNG)):
            with client.create_session(PROMPT, seed=6, image=image) as session:
                assert np.array_equal(next(iter(session)).pixels, expected)
        with pytest.raises(BadArgumentError, match=r"cannot read .*nowhere.png"):
            client.create_session(PROMPT, image=tmp_path / "nowhere.png")
        with pytest.raises(BadArgumentError, match=r"must be uint8 \[H, W, 3\]"):
            client.create_session(PROMPT, image=np.zeros((4, 4), np.uint8))
        with pytest.raises(RefusedError, match="must be a file of"):
            client.create_session(PROMPT, image=b"GIF89a")


def test_a_clip_says_how_it_began(server: Running, pipe: StreamingPipeline) -> None:
    async def fetch() -> bytes:
        async with AsyncClient(server.url) as client:
            pieces = client.video(PROMPT, 12, seed=2, image=PICTURE, start="first_frame")
            return b"".join([piece async for piece in pieces])

    with av.open(io.BytesIO(asyncio.run(fetch())), "r") as container:
        assert json.loads(container.metadata["comment"]) == pipe.metadata(PROMPT, 2, start="first_frame")
        assert len(list(container.decode(video=0))) == 12


def test_images_of_other_sizes(server: Running) -> None:
    """Upright by EXIF and cropped by default; a viewer may have it refused."""
    exif = Image.Exif()
    exif[274] = 6
    turned = Image.fromarray(np.rot90(PICTURE).copy())
    jpeg = text_of(file_of(turned, "JPEG", exif=exif))
    server.delete(server.create(image=jpeg, fit="refuse"))
    large = text_of(file_of(Image.fromarray(PICTURE).resize((200, 200)), "WEBP"))
    for fit in ("crop", "pad"):
        server.delete(server.create(image=large, fit=fit))
    refused = server.http.post("/v1/sessions", json={"prompt": PROMPT, "image": large, "fit": "refuse"})
    assert refused.json()["error"]["message"].startswith("the picture must be 32 x 48, got 200 x 200")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"image": "no base64!"}, "bad_image", "must be a file in base64"),
        ({"image": text_of(b"nothing")}, "bad_image", "must be a file of JPEG, PNG, WEBP"),
        ({"image": text_of(base64.b64decode(PNG)[:200])}, "bad_image", "the image is damaged"),
        ({"image": text_of(file_of(Image.fromarray(PICTURE), "GIF"))}, "bad_image", "JPEG, PNG, WEBP"),
        ({"image": 7}, "invalid", "image: "),
        ({"image": PNG, "start": "first"}, "invalid", "start: "),
        ({"image": PNG, "fit": "stretch"}, "invalid", "fit: "),
        ({"start": "still"}, "bad_image", "says how an image begins the stream, and there is none"),
    ],
)
def test_bad_images(server: Running, body: dict[str, Any], code: str, message: str) -> None:
    response = server.http.post("/v1/sessions", json={"prompt": PROMPT, **body})
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == code
    assert message in error["message"]
    assert len(error["message"]) < 300
    assert server.http.get("/v1/model").json()["sessions"] == 0


def test_images_have_limits(serve: Callable[..., Running]) -> None:
    server = serve(max_image_bytes=2000, max_image_pixels=10_000)
    assert server.http.get("/v1/model").json()["limits"]["max_image_bytes"] == 2000
    flat = Image.new("RGB", (101, 100), "red")
    for image, message in (
        (text_of(file_of(flat)), "may have 10000 pixels, got 100 x 101; scale it first"),
        (text_of(bytes(2001)), "may have 2000 bytes, got 2001; scale it first"),
    ):
        error = server.http.post("/v1/sessions", json={"prompt": PROMPT, "image": image}).json()["error"]
        assert error["code"] == "bad_image"
        assert message in error["message"]
    for path in ("/v1/sessions", "/v1/videos"):
        response = server.http.post(path, content=b"x" * (server.settings.max_opening_bytes + 1))
        assert response.status_code == 413


def test_only_who_is_admitted_has_an_image_decoded(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, decoded = serve(max_sessions=1), []

    def counted(*arguments: Any, **options: Any) -> Frames:
        decoded.append(1)
        return decode_image(*arguments, **options)

    monkeypatch.setattr("pyrf.serve.sessions.registry.decode_image", counted)
    created = server.create(image=PNG)
    refused = server.http.post("/v1/sessions", json={"prompt": PROMPT, "image": PNG})
    assert refused.json()["error"]["code"] == "full"
    assert len(decoded) == 1
    server.delete(created)
