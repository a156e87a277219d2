"""A small text encoder for a world's captions, in the classes of Wan's: UMT5 and a fast tokenizer."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """One token a word, lower case, punctuation dropped; ids 0..2 are pad, end and unknown."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(behavior="removed"), pre_tokenizers.Whitespace()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, vocabulary[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, padding_side="right"
    )


def small_umt5(vocab_size: int, dim: int = 128, layers: int = 2) -> UMT5EncoderModel:
    """UMT5 encoder with random weights: `layers` blocks of width `dim`."""
    config = UMT5Config(
        vocab_size=vocab_size,
        d_model=dim,
        d_kv=32,
        num_heads=dim // 32,
        num_layers=layers,
        d_ff=2 * dim,
        dropout_rate=0.0,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=64,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


class CaptionEncoder(nn.Module):
    """Tokenizer and encoder: captions -> prompt_embeds [B, text_len, dim], padding rows zero."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, text_len: int) -> None:
        super().__init__()
        self.tokenizer, self.encoder, self.text_len = tokenizer, encoder, text_len

    def forward(self, captions: list[str]) -> Tensor:
        batch = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=self.text_len, return_tensors="pt"
        )
        hidden = self.encoder(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        return hidden * batch.attention_mask[..., None]
