"""Prompt expansion: a language model writes a short prompt out, as captions of large models' training are."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from pyrf.endpoints.http import Endpoint, EndpointError

KEY_VARIABLE = "PYRF_EXPAND_KEY"
MAX_CHARS = 2000
"""Of an expanded prompt."""
MAX_KEPT = 256
"""Prompts whose expansion is remembered."""
MAX_TOKENS = 400

_TASK = (
    "You write prompts for a text-to-video model. Write the user's prompt out as one paragraph of at most 80 "
    "words, in English, in the present tense. Keep the subject and all that is said of it. Add how it looks, "
    "how it moves, the place, the light and the camera. Answer with the paragraph alone."
)
_KNOWN = (
    "You write prompts for a small text-to-video model. Write the user's prompt anew in one short sentence "
    "that uses only these words: {words}. Keep as much of its meaning as these words can say. Answer with "
    "the sentence alone."
)


@dataclass(frozen=True)
class Expanded:
    """What became of a prompt.

    Attributes:
        text: the expanded prompt, or the user's own.
        problem: why it is the user's own, if expanding failed.
    """

    text: str
    problem: str | None = None


class PromptExpander:
    """Expands prompts by a chat model of an OpenAI-compatible API. Threads may share it.

    Args:
        url: base of the API, as "http://localhost:11434/v1".
        model: its name there.
        key: sent as a bearer token; by default $PYRF_EXPAND_KEY.
        timeout_s: seconds for a call.
        vocabulary: words that the video model knows, if it knows no others.

    Raises:
        ValueError: when the URL, key or time-out is none.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "default",
        key: str | None = None,
        timeout_s: float = 10.0,
        vocabulary: Sequence[str] = (),
    ) -> None:
        key = key or os.environ.get(KEY_VARIABLE) or None
        self._endpoint = Endpoint(url, key=key, timeout_s=timeout_s, option="expand")
        self._model = model
        self._task = _KNOWN.format(words=", ".join(vocabulary)) if vocabulary else _TASK
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"<PromptExpander at {self._endpoint.url}>"

    def __call__(self, prompt: str) -> str:
        """The expanded prompt; where that fails, the prompt itself, with a `RuntimeWarning`."""
        expanded = self.expand(prompt)
        if expanded.problem is not None:
            warnings.warn(f"{expanded.problem}; the prompt is shown as it is", RuntimeWarning, stacklevel=2)
        return expanded.text

    def expand(self, prompt: str) -> Expanded:
        """The expanded prompt, asked for once for each of the newest prompts."""
        with self._lock:
            if prompt in self._kept:
                self._kept.move_to_end(prompt)
                return Expanded(self._kept[prompt])
        try:
            text = self._asked(prompt)
        except EndpointError as error:
            return Expanded(prompt, str(error))
        with self._lock:
            self._kept[prompt] = text
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return Expanded(text)

    def _asked(self, prompt: str) -> str:
        reply = self._endpoint.post(
            "/chat/completions",
            {
                "model": self._model,
                "messages": [
                    {"role": "system", "content": self._task},
                    {"role": "user", "content": prompt},
                ],
                "max_tokens": MAX_TOKENS,
                "temperature": 0,
            },
        )
        try:
            content = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            content = None
        if not isinstance(content, str):
            raise EndpointError(f"{self._endpoint.url} answered with no chat completion")
        text = " ".join(content.split()).strip('"')
        if not text or len(text) > MAX_CHARS or not text.isprintable():
            raise EndpointError(
                f"{self._endpoint.url} answered with no prompt of 1..{MAX_CHARS} printable characters"
            )
        return text
