"""What public objects show of themselves: one useful line, without tensors and without tokens."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pyrf
from pyrf.bundle import load_bundle
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from pyrf.video import EncoderSettings, Signer, Watermark, open_writer
from tests.support.credentials import write_credentials
from tests.test_public_api import PUBLIC

SECRET = "s3cret-token-of-a-session"
LONG = "a" * 80


def objects(bundle: Path, folder: Path) -> Iterator[tuple[str, object]]:
    """One of each public class that is not an error, under its name."""
    pipe = StreamingPipeline.from_pretrained(str(bundle))
    yield "StreamingPipeline", pipe
    with pipe.stream([LONG, "a blue square"]) as several:
        yield "Stream", several
        chunk = next(several)
    yield "Stream", several
    yield "Chunk", chunk
    yield "Timing", chunk.timing
    yield "Scheduled", pyrf.Scheduled(1, 0.5625, 2, 1.3125)
    yield "Change", pyrf.Change("a", over=1.0)
    entries = "".join(f"- at: {i}\n  prompt: a long story\n" for i in range(1, 99))
    yield "Script", pyrf.Script.parse(f"story:\n- prompt: {'a ' * 99}\n{entries}")
    yield "Video", pyrf.Video(np.zeros((81, 64, 96, 3), np.uint8), 16)
    yield "Source", pyrf.Source(chunk.frames, live=True)
    yield "ModelConfig", pipe.model_config
    yield "StreamConfig", pipe.stream_config
    yield "Bundle", load_bundle(str(bundle))
    yield "Card", load_bundle("tiny").card
    yield "Shown", load_bundle("tiny").card.gallery[0]
    yield "", pipe.model
    yield "", ServeSettings(token=SECRET, ice_servers=(f"turn:me:{SECRET}@turn.example",))
    for name in ("x.mp4", "x.gif", "x.png", "x/"):
        writer = open_writer(folder / name, 16)
        yield "", writer
        writer.discard()
    yield "Watermark", Watermark("made with pyrf")
    (folder / SECRET).mkdir()
    signing = write_credentials(folder / SECRET)
    yield "Signer", Signer(signing.certificate, signing.key)
    yield from client_objects()


def client_objects() -> Iterator[tuple[str, object]]:
    from pyrf.client import Admin, AsyncClient, AsyncSession, Client, Session
    from pyrf.endpoints.expand import PromptExpander
    from pyrf.protocol import SessionCreated

    created = SessionCreated.model_construct(id="abc", token=SECRET)
    client = Client("http://127.0.0.1:9", SECRET)
    session = AsyncSession(client._client.url, client._client._calls, created, "raw")
    yield "AsyncClient", AsyncClient("http://127.0.0.1:9", SECRET)
    yield "Client", client
    yield "Admin", Admin("http://127.0.0.1:9", SECRET)
    yield "AsyncSession", session
    yield "Session", Session(client, session)
    yield "", created
    yield "EncoderSettings", EncoderSettings(crf=20)
    yield "PromptExpander", PromptExpander("http://127.0.0.1:9/v1", key=SECRET)
    client.close()


def test_reprs(random_bundle: Path, tmp_path: Path) -> None:
    shown = set()
    for name, thing in objects(random_bundle, tmp_path):
        text = repr(thing)
        assert "\n" not in text, text
        assert len(text) <= 400, text
        assert SECRET not in text, text
        assert SECRET not in str(thing), text
        assert "tensor(" not in text, text
        assert " object at 0x" not in text, text
        shown.add(name)
    named = {
        name
        for module in PUBLIC
        for name in importlib.import_module(module).__all__
        if isinstance(getattr(importlib.import_module(module), name), type)
        and not issubclass(getattr(importlib.import_module(module), name), Exception)
    }
    assert named - shown <= {"Frame"}  # has a test of its own


def test_a_frame() -> None:
    from types import SimpleNamespace
    from typing import Any

    from pyrf.client import Frame

    header: Any = SimpleNamespace(frame=7)
    frame = Frame(np.zeros((64, 96, 3), np.uint8), header)
    assert repr(frame) == "<Frame 7: uint8 [64, 96, 3]>"


@pytest.mark.parametrize(("prompt", "shown"), [("a red circle", "'a red circle'"), (LONG, "aaa...'")])
def test_a_stream_names_its_prompt(random_bundle: Path, prompt: str, shown: str) -> None:
    with StreamingPipeline.from_pretrained(str(random_bundle)).stream(prompt) as stream:
        assert shown in repr(stream)
        assert repr(stream).endswith("open>")
    assert repr(stream).endswith("closed>")
