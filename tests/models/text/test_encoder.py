"""The text encoder against transformers' UMT5EncoderModel and tokenizer."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrf.bundle.names import t5_from_transformers
from pyrf.models.text.encoder import TextEncoder, clean_prompt, read_tokenizer
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder
from tests.support import networks


@settings(max_examples=12, derandomize=True)
@given(
    heads=st.integers(1, 3),
    head_dim=st.sampled_from([4, 8]),
    dim=st.sampled_from([8, 20]),
    num_layers=st.integers(1, 3),
    buckets=st.sampled_from([(8, 16), (32, 128), (32, 64)]),
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=3),
)
def test_the_encoder_is_transformers(
    heads: int, head_dim: int, dim: int, num_layers: int, buckets: tuple[int, int], lengths: list[int]
) -> None:
    from transformers import UMT5Config as TheirConfig
    from transformers import UMT5EncoderModel

    theirs = UMT5EncoderModel(
        TheirConfig(
            vocab_size=50,
            d_model=dim,
            d_kv=head_dim,
            d_ff=3 * dim,
            num_layers=num_layers,
            num_heads=heads,
            relative_attention_num_buckets=buckets[0],
            relative_attention_max_distance=buckets[1],
        )
    )
    networks.randomise(theirs)
    ours = UMT5Encoder(
        UMT5Config(
            vocab_size=50,
            dim=dim,
            attention_dim=heads * head_dim,
            ffn_dim=3 * dim,
            num_heads=heads,
            num_layers=num_layers,
            num_buckets=buckets[0],
            max_distance=buckets[1],
        )
    )
    weights = {t5_from_transformers(name): tensor for name, tensor in theirs.state_dict().items()}
    weights.pop("encoder.embed_tokens.weight", None)
    ours.load_state_dict(weights)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (len(lengths), max(lengths)), generator=generator)
    keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        expected = theirs(ids, attention_mask=keep.long()).last_hidden_state
        found = ours(ids, keep)
    assert expected[keep].std() > 0.1
    torch.testing.assert_close(found[keep], expected[keep], rtol=0, atol=2e-5)


def test_encode_pads_with_zero_rows() -> None:
    encoder = networks.text_encoder()
    rows = encoder.encode(["a red circle", "blue square moves right", ""])
    assert rows.shape == (3, 8, 16)
    lengths = [4, 5, 1]  # words and </s>
    for row, length in zip(rows, lengths):
        assert (row[:length].abs().sum(-1) > 0).all()
        assert not row[length:].any()


def test_a_prompt_is_encoded_alike_in_any_batch() -> None:
    encoder = networks.text_encoder()
    prompts = ["a red circle", "blue square moves right left spins", "a"]
    batch = encoder.encode(prompts)
    for prompt, rows in zip(prompts, batch):
        torch.testing.assert_close(encoder.encode([prompt])[0], rows, rtol=0, atol=1e-5)


def test_a_prompt_has_the_same_bits_in_any_company() -> None:
    network = UMT5Encoder(UMT5Config(vocab_size=50, dim=256, attention_dim=256, ffn_dim=704, num_heads=4))
    networks.randomise(network)
    encoder = TextEncoder(network, networks.tokenizer(), text_len=16)
    prompts = ["a red circle", "circle", "blue square spins", "a", "red red red red red red", "square"]
    alone = [encoder.encode([prompt])[0] for prompt in prompts]
    for count in range(2, len(prompts) + 1):
        for rows, expected in zip(encoder.encode(prompts[:count]), alone):
            assert torch.equal(rows, expected)


def test_every_word_and_its_place_matter() -> None:
    rows = networks.text_encoder().encode(["a red circle", "a blue circle", "circle red a"])
    assert (rows[0] - rows[1]).abs().max() > 1e-2
    assert (rows[0] - rows[2]).abs().max() > 1e-2


def test_tokens_are_those_of_the_fast_tokenizer() -> None:
    from transformers import PreTrainedTokenizerFast

    prompts = ["A red   circle", "unheard of", "moves " * 20]
    theirs = PreTrainedTokenizerFast(tokenizer_object=networks.tokenizer(), pad_token="<pad>")
    expected = theirs([clean_prompt(p) for p in prompts], truncation=True, max_length=8).input_ids
    encoder = networks.text_encoder()
    assert [e.ids for e in encoder.tokenizer.encode_batch([clean_prompt(p) for p in prompts])] == expected
    assert expected[2][-1] == 1  # a cut prompt keeps its </s>


def test_a_long_prompt_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    encoder = networks.text_encoder()
    with caplog.at_level(logging.WARNING):
        rows = encoder.encode(["moves " * 30, "a red circle moves right and left"])
    assert [record.getMessage()[:32] for record in caplog.records] == ["prompt cut to its first 8 tokens"]
    assert torch.equal(rows[:1], encoder.encode(["moves " * 7]))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("  a \n\t red   circle ", "a red circle"),
        ("caf\u00c3\u00a9", "caf\u00e9"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("1 < 2 &amp;amp; 3", "1 < 2 & 3"),  # where ftfy sees a tag, it leaves entities to the two passes
        ("\u00a0", ""),
    ],
)
def test_prompts_are_cleaned(prompt: str, expected: str) -> None:
    assert clean_prompt(prompt) == expected


def test_no_prompt_of_no_tokens_is_all_zero() -> None:
    tokenizer = networks.tokenizer()
    tokenizer.post_processor = None
    encoder = TextEncoder(networks.text_encoder().network, tokenizer, 4)
    assert encoder.encode([""]).shape == (1, 4, 16)
    assert not encoder.encode([""]).any()
    assert encoder.encode([]).shape == (0, 4, 16)


def test_rows_can_serve_training() -> None:
    """Rows made without gradient may be saved for a later backward pass."""
    rows = networks.text_encoder().encode(["a red circle"])
    linear = torch.nn.Linear(16, 1)
    linear(rows).sum().backward()
    assert linear.weight.grad is not None


def test_bf16_is_near_fp32() -> None:
    encoder = networks.text_encoder()
    expected = encoder.encode(["a red circle"])
    half = TextEncoder(encoder.network.bfloat16(), encoder.tokenizer, 8).encode(["a red circle"])
    assert half.dtype == torch.bfloat16
    assert (half - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()


def test_a_tokenizer_with_more_words_than_rows_is_refused() -> None:
    tokenizer = networks.tokenizer()
    tokenizer.add_tokens([f"word{i}" for i in range(10)])
    with pytest.raises(ValueError, match="ids up to 21, the text encoder only 16 rows"):
        TextEncoder(networks.text_encoder().network, tokenizer, 8)


def test_damaged_tokenizers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json: no such file"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3')
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer") as caught:
        read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"num_heads": 5}, {"num_layers": 0}, {"num_buckets": 7}, {"max_distance": 2}]
)
def test_impossible_sizes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        UMT5Config(**{"dim": 8, "attention_dim": 8, "num_heads": 2, **change})


def test_starting_needs_no_heavy_library() -> None:
    """What a cold start reads before the first frame of the bundled model must not pull these in."""
    code = "import pyrf.bundle, sys; print([m for m in ('transformers', 'diffusers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
