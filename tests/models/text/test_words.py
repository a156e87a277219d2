"""Words of a prompt are what the tokenizer makes of them."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from pyrf.bundle import load_bundle
from pyrf.models.text.encoder import clean_prompt, read_tokenizer
from pyrf.models.text.words import words_of


def tiny() -> Tokenizer:
    return read_tokenizer(load_bundle("tiny").layout.tokenizer)


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a red circle", []),
        ("A RED, Circle!!", []),
        ("\uff41 \uff52\uff45\uff44\u00a0circle", []),
        ("red-blue circle...", []),
        ("a &quot;red&quot; circle", []),
        ("an Orange square", ["an", "orange"]),
        ("红色圆圈", ["红色圆圈"]),
        ("🔴 circle 🎈", ["🔴", "🎈"]),
        ("<unk> circle </s>", ["unk", "s"]),
        ("two red circles", ["two"]),
        ("gr\u0435y circle", ["gr\u0435y"]),  # a Cyrillic letter
        ("cafe\u0301", ["caf\u00e9"]),
        ("it's red", ["it", "s"]),
        ("!!!", []),
        ("", []),
    ],
)
def test_what_a_word_tokenizer_does_not_know(prompt: str, unknown: list[str]) -> None:
    words = words_of(tiny(), clean_prompt(prompt))
    assert [word.plain for word in words if not word.known] == unknown


def test_words_of_several_tokens_are_whole() -> None:
    model = models.Unigram([("<unk>", 0.0), ("\u2581red", -1.0), ("\u2581cir", -2.0), ("cle", -2.0)], 0)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    words = words_of(tokenizer, "red circle redcle")
    assert [(word.text, word.plain, word.known) for word in words] == [
        ("red", "red", True),
        ("circle", "circle", True),
        ("redcle", "redcle", True),
    ]
