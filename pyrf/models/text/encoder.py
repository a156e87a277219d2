"""Prompts to text rows: cleaning, tokens and the UMT5 encoder."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Callable
from pathlib import Path

import ftfy
import torch
from tokenizers import Tokenizer
from torch import Tensor

from pyrf.loop.inference import unmixed
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder

logger = logging.getLogger(__name__)


def clean_prompt(prompt: str) -> str:
    """Mend broken unicode and HTML entities and collapse white space, as Wan's training did."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def read_tokenizer(directory: Path) -> Tokenizer:
    """Read `tokenizer.json`, the file that holds a fast tokenizer whole.

    Raises:
        ValueError: when it is missing or damaged.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a bundle needs a fast tokenizer's tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the binding raises bare Exception
        raise ValueError(f"{path}: not a tokenizer ({str(error).splitlines()[0]})") from error


def check_ids(tokenizer: Tokenizer, config: UMT5Config) -> None:
    """Refuse a tokenizer whose ids the encoder has no rows for.

    Raises:
        ValueError: saying how many it has.
    """
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= config.vocab_size:
        raise ValueError(
            f"the tokenizer has ids up to {highest}, the text encoder only {config.vocab_size} rows"
        )


class TextEncoder:
    """A tokenizer and the UMT5 encoder behind one method.

    Args:
        network: the encoder, on its device and in its dtype.
        tokenizer: gives ids, with the end-of-text token when the network was trained with one.
        text_len: rows that `encode` returns for every prompt.
    """

    def __init__(self, network: UMT5Encoder, tokenizer: Tokenizer, text_len: int) -> None:
        check_ids(tokenizer, network.config)
        self.network = network
        self.tokenizer = tokenizer
        self.text_len = text_len
        tokenizer.no_padding()
        tokenizer.enable_truncation(text_len)

    @property
    def text_dim(self) -> int:
        return self.network.config.dim

    @torch.no_grad()
    @unmixed()
    def encode(self, prompts: list[str]) -> Tensor:
        """`embed` without a gradient, for inference: one prompt per call of the network.

        A matrix product of another batch may sum in another order. Encoded by itself, a prompt has the
        same rows, bit for bit, whatever stands beside it.
        """
        if not prompts:
            return self.embed(prompts)
        return torch.cat([self.embed([prompt]) for prompt in prompts])

    def embed(self, prompts: list[str]) -> Tensor:
        """Encode prompts, differentiably; an empty one gives the rows of no text.

        A prompt of more than `text_len` tokens is cut there, with a warning.

        Args:
            prompts: B strings.

        Returns:
            prompt_embeds [B, text_len, text_dim] in the encoder's dtype and device; padding rows are zero.
        """
        encodings = self.tokenizer.encode_batch([clean_prompt(prompt) for prompt in prompts])
        for prompt, encoding in zip(prompts, encodings):
            if encoding.overflowing:
                logger.warning(
                    "prompt cut to its first %d tokens: %.60s...", self.text_len, clean_prompt(prompt)
                )
        lengths = [len(encoding.ids) for encoding in encodings]
        weight = self.network.token_embedding.weight
        rows = weight.new_zeros(len(prompts), self.text_len, self.text_dim)
        longest = max(lengths, default=0)
        if longest == 0:
            return rows
        # Padding is masked out and zeroed after, so rows past the longest prompt need no computing.
        padded = [e.ids + [0] * (longest - len(e.ids)) for e in encodings]
        kept = [[i < length for i in range(longest)] for length in lengths]
        ids = torch.tensor(padded, dtype=torch.int64, device="cpu").to(weight.device)
        keep = torch.tensor(kept, dtype=torch.bool, device="cpu").to(weight.device)
        rows[:, :longest] = self.network(ids, keep) * keep[..., None]
        return rows


class BriefTextEncoder(TextEncoder):
    """A text encoder whose network is there while a prompt is encoded, and not before or after.

    Args:
        read: the network, from where it is kept.
        config: its sizes.
        tokenizer, text_len: as of `TextEncoder`.
    """

    def __init__(
        self, read: Callable[[], UMT5Encoder], config: UMT5Config, tokenizer: Tokenizer, text_len: int
    ) -> None:
        check_ids(tokenizer, config)
        self._read, self._config = read, config
        self.tokenizer = tokenizer
        self.text_len = text_len
        tokenizer.no_padding()
        tokenizer.enable_truncation(text_len)

    @property
    def text_dim(self) -> int:
        return self._config.dim

    def embed(self, prompts: list[str]) -> Tensor:
        """As of `TextEncoder`. The network is read anew at each call."""
        return TextEncoder(self._read(), self.tokenizer, self.text_len).embed(prompts)

    def encode(self, prompts: list[str]) -> Tensor:
        """As of `TextEncoder`; the network is read once."""
        return TextEncoder(self._read(), self.tokenizer, self.text_len).encode(prompts)
