"""`pyrf words`: what a model knows, and what of a prompt it does not."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from pyrf import printing
from pyrf.commands.options import DEFAULT_MODEL, ModelOption


def words(
    prompt: Annotated[str | None, typer.Argument(help="Say which of its words the model lacks.")] = None,
    model: ModelOption = DEFAULT_MODEL,
) -> None:
    """List what a model knows and shows well, or check a prompt. No video is made."""
    from pyrf.bundle.bundle import load_bundle
    from pyrf.streaming.notices import prompt_notices

    bundle = load_bundle(model)
    card = bundle.card
    if prompt is not None:
        notices = prompt_notices(card, bundle.text_encoder(), prompt)
        known = "the model knows all words of this prompt" if card.vocabulary else SILENT
        printing.deliver("\n".join(notices or [known]))
        return
    text = [] if card.vocabulary else [SILENT]
    for title, lines in (
        ("Knows", [" ".join(card.vocabulary)]),
        ("Reads, and has not learned", [" ".join(card.unlearned)]),
        ("Frames, height x width", [f"{height} x {width}" for height, width in card.sizes]),
        ("Limits", card.limits),
        ("Choices", [f"{name}: {', '.join(phrases)}" for name, phrases in card.choices.items()]),
        ("Shows well", [f"{shown.prompt} (seed {shown.seed})" for shown in card.gallery]),
    ):
        if any(lines):
            text.append(f"{title}:")
            text += [textwrap.fill(line, 100, initial_indent="  ", subsequent_indent="  ") for line in lines]
    printing.deliver("\n".join(text))


SILENT = "this model does not say which words it knows"
