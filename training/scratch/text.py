"""A small text encoder for a world's captions: a word tokenizer and an untrained UMT5."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from pyrf.models.text.encoder import TextEncoder
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """One token per word, lower case, punctuation dropped; ids 0..2 are pad, end and unknown."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(behavior="removed"), pre_tokenizers.WhitespaceSplit()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, vocabulary[EOS])]
    )
    return tokenizer


def small_text_encoder(words: Sequence[str], dim: int, text_len: int, layers: int = 2) -> TextEncoder:
    """Tokenizer of `words` and a UMT5 encoder of width `dim` with random weights."""
    tokenizer = word_tokenizer(words)
    network = UMT5Encoder(
        UMT5Config(
            vocab_size=tokenizer.get_vocab_size(),
            dim=dim,
            attention_dim=dim,
            ffn_dim=2 * dim,
            num_heads=dim // 32,
            num_layers=layers,
            max_distance=64,
        )
    )
    for block in network.blocks:
        nn.init.zeros_(block.get_parameter("pos_embedding.embedding.weight"))
    return TextEncoder(network, tokenizer, text_len)
