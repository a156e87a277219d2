"""`--expand`, and `expand=` in Python, against a real HTTP server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from pyrf import PromptExpander, StreamingPipeline
from pyrf.commands.app import app
from tests.support.chat_endpoint import as_chat, chat_endpoint


def blue(_: str, body: Any) -> tuple[int, bytes]:
    return as_chat(body["messages"][-1]["content"].replace("ball", "blue circle"))


def generate(*options: str) -> Any:
    return CliRunner().invoke(
        app, ["generate", "--seconds", "0.5", "--height", "32", "--width", "48", *options]
    )


def prompt_of(path: Path) -> Any:
    with av.open(str(path)) as container:
        return json.loads(container.metadata["comment"])["prompt"]


def test_generate_shows_the_expanded_prompt(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with chat_endpoint(blue) as endpoint:
        result = generate("a ball", "-o", str(path), "--expand", endpoint.url, "--expand-model", "small")
        assert result.exit_code == 0, result.output
        ((_, _, body),) = endpoint.asked
    assert "expanded: 'a ball' is shown as 'a blue circle'" in result.stderr
    assert body["model"] == "small"
    assert "triangle" in body["messages"][0]["content"]  # the words that the model knows
    assert prompt_of(path) == "a blue circle"


def test_generate_goes_on_without_the_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with chat_endpoint(lambda *_: (500, b"")) as endpoint:
        result = generate("a red circle", "-o", str(path), "--expand", endpoint.url)
    assert result.exit_code == 0, result.output
    assert "HTTP 500; 'a red circle' is shown as it is" in result.stderr
    assert prompt_of(path) == "a red circle"


def test_a_url_that_is_none_is_refused_first(tmp_path: Path) -> None:
    result = generate("a red circle", "-o", str(tmp_path / "a.mp4"), "--expand", "nowhere", "--model", "none")
    assert "expand must be the base URL" in str(result.exception)


def test_streams_show_expanded_prompts(random_bundle: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    with chat_endpoint(blue) as endpoint:
        expand = PromptExpander(endpoint.url)
        video = pipe("a ball", num_frames=15, timeline={1: "no ball"}, expand=expand)
        prompts: list[str | dict[str, float]] = ["a ball", {"a ball": 1.0, "a fox": 1.0}]
        with pipe.stream(prompts, expand=expand) as stream:
            # Blends are the user's own.
            assert stream.prompt == ("a blue circle", (("a ball", 0.5), ("a fox", 0.5)))
        assert len(endpoint.asked) == 2
    expected = pipe("a blue circle", num_frames=15, timeline={1: "no blue circle"})
    np.testing.assert_array_equal(video.frames, expected.frames)
    assert video.metadata == expected.metadata


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYRF_EXPAND_KEY", raising=False)
