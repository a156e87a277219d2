"""Prompt expansion against a real HTTP server, well-behaved and not."""

from __future__ import annotations

import warnings

import pytest

from pyrf.endpoints import expand
from pyrf.endpoints.expand import PromptExpander
from pyrf.endpoints.http import MAX_REPLY_BYTES
from tests.support.chat_endpoint import as_chat, chat_endpoint


def test_a_prompt_is_expanded_once() -> None:
    with chat_endpoint(
        lambda _, body: as_chat(f'"{body["messages"][-1]["content"]},\n  at dusk"')
    ) as endpoint:
        expander = PromptExpander(endpoint.url, model="small", key="secret")
        assert [expander("a fox") for _ in range(3)] == ["a fox, at dusk"] * 3
        (path, headers, body), *others = endpoint.asked
    assert not others
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body["model"] == "small"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "secret" not in repr(expander)


def test_the_cache_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "MAX_KEPT", 2)
    with chat_endpoint(lambda *_: as_chat("more")) as endpoint:
        expander = PromptExpander(endpoint.url)
        for prompt in ("a", "b", "a", "c", "a", "b"):  # c takes the place of b
            expander(prompt)
        assert [body["messages"][-1]["content"] for *_, body in endpoint.asked] == ["a", "b", "c", "b"]


def test_a_small_model_is_asked_for_in_its_own_words() -> None:
    with chat_endpoint(lambda *_: as_chat("a circle")) as endpoint:
        PromptExpander(endpoint.url, vocabulary=["circle", "red"])("a ball")
        assert "circle, red" in endpoint.asked[0][2]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (500, b"{}", "HTTP 500"),
        (302, b"http://127.0.0.1:9/elsewhere", "HTTP 302"),
        (200, b"hello", "no JSON"),
        (200, b"[" * 60_000, "no JSON"),
        (200, b'{"choices": []}', "no chat completion"),
        (200, b"[1]", "no chat completion"),
        (200, b'"' + b"x" * MAX_REPLY_BYTES + b'"', "longer than"),
        (*as_chat(""), "no prompt"),
        (*as_chat("x" * 2001), "no prompt"),
        (*as_chat("a fox\x00"), "no prompt"),
    ],
)
def test_a_bad_answer_keeps_the_prompt(status: int, content: bytes, words: str) -> None:
    with chat_endpoint(lambda *_: (status, content)) as endpoint:
        expander = PromptExpander(endpoint.url)
        with pytest.warns(RuntimeWarning, match=words):
            assert expander("a fox") == "a fox"
        assert expander.expand("a fox").problem  # and a failure is not remembered
        assert len(endpoint.asked) == 2


def test_no_answer_in_time_keeps_the_prompt() -> None:
    with chat_endpoint(lambda *_: as_chat("late")) as endpoint:
        endpoint.held.clear()
        expanded = PromptExpander(endpoint.url, timeout_s=0.2).expand("a fox")
    assert expanded.text == "a fox"
    assert "0.2 s" in (expanded.problem or "")


def test_nobody_there_keeps_the_prompt() -> None:
    with chat_endpoint(lambda *_: as_chat("")) as endpoint:
        pass
    assert "cannot be asked" in (PromptExpander(endpoint.url).expand("a fox").problem or "")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("localhost:80", {}),
        ("file:///etc/passwd", {}),
        ("http://", {}),
        ("http://a:b@c/v1", {}),
        ("http://c/v1?a=b", {}),
        ("http://c:99999/v1", {}),
        ("http://c/v1", {"timeout_s": 0}),
        ("http://c/v1", {"timeout_s": float("nan")}),
        ("http://c/v1", {"key": "a\nb"}),
    ],
)
def test_bad_arguments(url: str, options: dict[str, float]) -> None:
    with warnings.catch_warnings(), pytest.raises(ValueError, match="expand"):
        PromptExpander(url, **options)  # type: ignore[arg-type]
