"""`--expand` of commands: a language model writes the prompts out, and the user sees what it made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, cast

import typer

from pyrf import printing
from pyrf.commands.story import Story
from pyrf.endpoints.expand import PromptExpander
from pyrf.streaming.expansion import expand_prompt, expand_switches
from pyrf.streaming.mix import ClipPrompt

ExpandOption = Annotated[
    str | None,
    typer.Option(
        "--expand",
        help="Write prompts out by a language model first: the base URL of an OpenAI-compatible API; its key "
        "is $PYRF_EXPAND_KEY.",
        metavar="URL",
    ),
]
ExpandModelOption = Annotated[str, typer.Option("--expand-model", help="The language model's name there.")]


def check_expand(url: str | None, model: str) -> None:
    """Refuse a URL that is none, before anything is loaded.

    Raises:
        ValueError: when it is no base URL of an API.
    """
    if url is not None:
        PromptExpander(url, model=model)


def tell_expanded(story: Story, url: str, model: str, vocabulary: Sequence[str]) -> Story:
    """The story with its prompts written out, each of which is printed; a failure keeps the user's own.

    Args:
        vocabulary: words that the video model knows, if it knows no others.
    """
    expander = PromptExpander(url, model=model, vocabulary=vocabulary)

    def expand(prompt: str) -> str:
        expanded = expander.expand(prompt)
        if expanded.problem is None:
            printing.tell(f"expanded: {prompt!r} is shown as {expanded.text!r}")
        else:
            printing.tell(f"warning: {expanded.problem}; {prompt!r} is shown as it is")
        return expanded.text

    prompt = cast(ClipPrompt, expand_prompt(expand, story.prompt))
    return replace(story, prompt=prompt, switches=expand_switches(expand, story.switches))
