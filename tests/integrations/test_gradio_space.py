"""The Gradio Space runs as it stands, and is watched by Gradio's own client."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import pyrf
from pyrf.worlds.shapes.detector import detect
from tests.support.receivers import free_port

gradio = pytest.importorskip("gradio")

FOLDER = Path(__file__).parents[2] / "integrations" / "gradio_space"
SECONDS, FPS = 3, 16
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    import gradio_client  # seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("PYRF_SECONDS", str(SECONDS))
        demo = runpy.run_path(str(FOLDER / "app.py"), run_name="app")["demo"]
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_port=free_port())
    yield gradio_client.Client(url, verbose=False)
    demo.close()


def pixels(shown: Any) -> np.ndarray:
    path = shown["path"] if isinstance(shown, dict) else shown
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_visitor_watches_and_changes_the_prompt(client: Any) -> None:
    job = client.submit("a large red circle moves right", 6, api_name="/show")
    first = next(job)
    client.predict("a large blue square bounces", api_name="/change")
    job.result(TIMEOUT_S)
    shown = job.outputs()
    assert len(shown) == SECONDS * FPS
    assert pixels(first).shape == (64, 96, 3)
    seen = [detect(np.stack([pixels(one) for one in part])) for part in (shown[:9], shown[-9:])]
    assert [(one.color, one.shape) for one in seen] == [("red", "circle"), ("blue", "square")]


@pytest.mark.parametrize(("prompt", "words"), [("x" * 501, "500 characters"), (" ", "empty")])
def test_a_visitor_is_told_what_is_wrong(client: Any, prompt: str, words: str) -> None:
    with pytest.raises(Exception, match=words):
        client.submit(prompt, 0, api_name="/show").result(TIMEOUT_S)


def test_what_the_hub_reads() -> None:
    front = yaml.safe_load((FOLDER / "README.md").read_text().split("---")[1])
    assert (front["sdk"], front["license"]) == ("gradio", "apache-2.0")
    assert (FOLDER / front["app_file"]).exists()
    assert front["sdk_version"] == gradio.__version__
    assert len(front["short_description"]) <= 60  # the hub takes no more
    requirements = (FOLDER / "requirements.txt").read_text()
    assert re.search(rf"/pyrf_stream-{re.escape(pyrf.__version__)}-cp311-", requirements)
