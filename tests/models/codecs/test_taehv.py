"""TAEHV against golden data of the public network, and chunk by chunk against the whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pyrf.models.codecs.taehv import TAEHV, Memory, TAEHVCodec, TAEHVConfig

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "taehv" / "taehv_io.safetensors"
TINY = TAEHVConfig(
    encoder_width=8, decoder_widths=(12, 8, 8, 8), blocks=1, patch_size=2, upscale=(False, True, True)
)


@pytest.fixture(scope="module")
def golden_network() -> TAEHV:
    """taew2_1's architecture with the weights that golden data were made with."""
    network = TAEHV()
    rng = np.random.default_rng(7)
    state = {}
    for key, value in sorted(network.state_dict().items()):
        draw = rng.standard_normal(tuple(value.shape)).astype(np.float32)
        scale = np.float32(1 / np.sqrt(np.prod(value.shape[1:]))) if value.ndim >= 2 else np.float32(0.05)
        state[key] = torch.from_numpy(draw * scale)
    network.load_state_dict(state)
    return network.eval()


def test_golden_decode_and_encode(golden_network: TAEHV) -> None:
    golden = load_file(GOLDEN)
    with torch.inference_mode():
        decoded = golden_network.decode(golden["z"])
        encoded = golden_network.encode(golden["x"])
    assert (decoded - golden["decoded_raw"]).abs().max() <= 3e-5
    assert (encoded - golden["encoded"]).abs().max() <= 3e-5


@pytest.mark.parametrize("config", [TAEHVConfig(), TINY], ids=["taew2_1", "tiny"])
def test_stream_equals_whole(config: TAEHVConfig) -> None:
    torch.manual_seed(0)
    network = TAEHV(config).eval()
    z = torch.randn(2, 5, 16, 4, 6)
    x = torch.rand(2, 20, 3, 4 * config.spatial_stride, 6 * config.spatial_stride)
    with torch.inference_mode():
        memory_d: Memory = {}
        memory_e: Memory = {}
        parts = torch.cat([network.decode(z[:, a:b], memory_d) for a, b in ((0, 1), (1, 3), (3, 5))], dim=1)
        codes = torch.cat(
            [network.encode(x[:, a:b], memory_e) for a, b in ((0, 8), (8, 12), (12, 20))], dim=1
        )
        assert (parts - network.decode(z)).abs().max() < 1e-5
        assert (codes - network.encode(x)).abs().max() < 1e-5


def test_codec_frame_counts_and_dtype() -> None:
    torch.manual_seed(0)
    codec = TAEHVCodec(TAEHV(TINY))
    frames = torch.randint(0, 256, (1, 9, 16, 24, 3), dtype=torch.uint8)
    latents = codec.encode(frames)
    assert latents.shape == (1, 3, 16, 2, 3)
    decoder = codec.decoder()
    first, second = decoder.decode(latents), decoder.decode(latents)
    assert first.shape == (1, 9, 16, 24, 3)
    assert second.shape == (1, 12, 16, 24, 3)
    assert first.dtype == torch.uint8


@pytest.mark.parametrize("config", [TAEHVConfig(), TINY], ids=["taew2_1", "tiny"])
@pytest.mark.parametrize("split", [[9, 12], [1, 4, 4, 12]], ids=["chunks", "latents"])
def test_a_stream_is_encoded_as_the_whole(config: TAEHVConfig, split: list[int]) -> None:
    torch.manual_seed(1)
    codec = TAEHVCodec(TAEHV(config))
    shape = (2, 21, 2 * config.spatial_stride, 3 * config.spatial_stride, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    encoder = codec.encoder()
    parts = [encoder.encode(part) for part in frames.split(split, dim=1)]
    assert [part.shape[1] for part in parts] == [(n + 3) // 4 for n in split]
    assert (torch.cat(parts, dim=1) - codec.encode(frames)).abs().max() < 1e-5
    with pytest.raises(ValueError, match="must be a positive multiple of 4, got 9"):
        encoder.encode(frames[:, :9])


def test_encode_refuses_what_does_not_fit() -> None:
    codec = TAEHVCodec(TAEHV(TINY))
    with pytest.raises(ValueError, match="must be 1 \\+ a multiple of 4, got 8"):
        codec.encode(torch.zeros(1, 8, 16, 24, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="multiples of 8, got 16 x 20"):
        codec.encode(torch.zeros(1, 9, 16, 20, 3, dtype=torch.uint8))


def test_frames_and_latents_of_another_kind_are_refused() -> None:
    codec = TAEHVCodec(TAEHV(TINY))
    with pytest.raises(ValueError, match="frames must be uint8"):
        codec.encode(torch.zeros(1, 9, 16, 24, 3))
    with pytest.raises(ValueError, match="a single clip needs a batch axis"):
        codec.encode(torch.zeros(9, 16, 24, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"latents must be float \[B, F, 16, h, w\]"):
        codec.decoder().decode(torch.zeros(1, 3, 4, 2, 3))


def test_config_refuses_unknown_keys() -> None:
    assert TAEHVConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(ValueError, match="decoder_width"):
        TAEHVConfig.from_dict({"decoder_width": 3})
