"""The Wan VAE codec against golden data and against diffusers' own whole decode and encode."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyrf.models.codecs.codec import Codec
from pyrf.models.codecs.wan_vae import WanVAE, WanVAEDecoder, build_network
from tests.support.golden_vae import TOLERANCE, golden, golden_codec


def plain_codec() -> WanVAE:
    """The same without normalisation of latents."""
    return golden_codec(latents_mean=[0.0] * 16, latents_std=[1.0] * 16)


def gpu_codec() -> WanVAE:
    """The same as on a GPU."""
    return WanVAE(golden_codec().network, for_gpu=True)


def decode_float(decoder: WanVAEDecoder, latents: torch.Tensor) -> torch.Tensor:
    """What `decode` rounds: [B, 3, T, H, W]."""
    with torch.no_grad():
        return torch.cat(list(decoder._frames(latents)), dim=2)


def random_latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_a_codec() -> None:
    codec: Codec = golden_codec()
    assert (codec.latent_channels, codec.spatial_stride, codec.temporal_stride, codec.fps) == (16, 8, 4, 16.0)


def test_decode_is_golden() -> None:
    data = golden()
    raw = decode_float(plain_codec().decoder(), data["z"].transpose(1, 2))
    torch.testing.assert_close(raw, data["decoded_raw"], rtol=0, atol=TOLERANCE)
    normalised = decode_float(golden_codec().decoder(), data["z_normalised"].transpose(1, 2))
    torch.testing.assert_close(normalised, data["decoded_from_normalised"], rtol=0, atol=TOLERANCE)


def test_encode_is_golden() -> None:
    data = golden()
    for codec, expected in ((plain_codec(), "encoded_mu"), (golden_codec(), "encoded_normalised")):
        with torch.no_grad():
            latents = codec.encoder()._latents(data["x"])
        torch.testing.assert_close(latents.transpose(1, 2), data[expected], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("split", [[3, 3, 3], [1] * 9, [2, 7], [4, 5]])
def test_decoding_in_chunks_equals_the_whole_exactly(split: list[int]) -> None:
    codec, latents = golden_codec(), golden()["z"].transpose(1, 2)
    whole = codec.decoder().decode(latents)
    decoder = codec.decoder()
    parts = [decoder.decode(part) for part in latents.split(split, dim=1)]
    assert [part.shape[1] for part in parts] == [4 * split[0] - 3, *(4 * n for n in split[1:])]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert whole.shape == (1, 33, 32, 48, 3)
    assert whole.dtype == torch.uint8
    assert 20 < whole.float().std() < 120


@pytest.mark.parametrize("split", [[9, 12, 12], [1, *[4] * 8], [33]])
def test_encoding_in_chunks_equals_the_whole_exactly(split: list[int]) -> None:
    codec, generator = golden_codec(), torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (2, 33, 16, 24, 3), dtype=torch.uint8, generator=generator)
    encoder = codec.encoder()
    parts = [encoder.encode(part) for part in frames.split(split, dim=1)]
    assert [part.shape[1] for part in parts] == [(n + 3) // 4 for n in split]
    assert torch.equal(torch.cat(parts, dim=1), codec.encode(frames))
    assert parts[0].dtype == torch.float32


def test_an_encoder_goes_on_with_whole_latents_only() -> None:
    encoder = golden_codec().encoder()
    with pytest.raises(ValueError, match="must be 1 \\+ a multiple of 4, got 4"):
        encoder.encode(torch.zeros(1, 4, 16, 24, 3, dtype=torch.uint8))
    assert encoder.encode(torch.zeros(1, 1, 16, 24, 3, dtype=torch.uint8)).shape == (1, 1, 16, 2, 3)
    for frames in (0, 1, 5):
        with pytest.raises(ValueError, match=f"must be a positive multiple of 4, got {frames}"):
            encoder.encode(torch.zeros(1, frames, 16, 24, 3, dtype=torch.uint8))


@pytest.mark.parametrize("split", [[3, 3], [6], [1] * 6, [2, 4]])
def test_the_way_of_a_gpu_is_golden(split: list[int]) -> None:
    """Channels last, several latents at once; also where a stream begins with one latent, or many."""
    data, decoder = golden(), gpu_codec().decoder()
    parts = data["z_normalised"].transpose(1, 2).split(split, dim=1)
    found = torch.cat([decode_float(decoder, part) for part in parts], dim=2)
    torch.testing.assert_close(found, data["decoded_from_normalised"], rtol=0, atol=TOLERANCE)


class Layouts(TorchDispatchMode):
    """Notes whether what is joined is contiguous, and what is copied too, or with channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[bool] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        if op is torch.ops.aten.cat.default:
            self.together += [x.is_contiguous() for x in args[0] if x.ndim == 5]
        elif op is torch.ops.aten.clone.default and out.ndim == 5:
            last = torch.channels_last_3d
            self.together += [
                x.is_contiguous() or x.is_contiguous(memory_format=last) for x in (args[0], out)
            ]
        return out


def test_the_way_of_a_gpu_turns_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """With convolutions that give channels last as cuDNN's do; a layout that is turned costs a slow copy."""
    conv2d, conv3d = F.conv2d, F.conv3d
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}

    def channels_last(conv: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        out = conv(*args, **kwargs)
        return out.contiguous(memory_format=formats[out.ndim])

    monkeypatch.setattr(F, "conv2d", partial(channels_last, conv2d))
    monkeypatch.setattr(F, "conv3d", partial(channels_last, conv3d))
    decoder, latents = gpu_codec().decoder(), golden()["z_normalised"].transpose(1, 2)
    with Layouts() as layouts:
        list(decoder._frames(latents[:, :3]))  # the stream's first chunk has single frames to join
        list(decoder._frames(latents[:, 3:]))
    assert len(layouts.together) > 100
    assert all(layouts.together)


def test_the_decoder_of_a_gpu_keeps_names_and_values() -> None:
    """So a bundle that is saved from it is the same."""
    plain, other = golden_codec().network.state_dict(), gpu_codec().network.state_dict()
    assert list(other) == list(plain)
    assert all(torch.equal(other[name], tensor) for name, tensor in plain.items())


def test_frames_are_the_rounded_decode() -> None:
    codec, latents = golden_codec(), golden()["z_normalised"].transpose(1, 2)
    frames = codec.decoder().decode(latents).permute(0, 4, 1, 2, 3)
    levels = (golden()["decoded_from_normalised"].clamp(-1, 1) + 1) * 127.5
    assert (frames - levels).abs().max() <= 0.5 + 1e-3


def test_streams_do_not_share_memory() -> None:
    codec = golden_codec()
    one, two = random_latents(1, 6, 16, 2, 3, seed=1), random_latents(1, 6, 16, 2, 3, seed=2)
    expected = [codec.decoder().decode(latents) for latents in (one, two)]
    first, second = codec.decoder(), codec.decoder()
    parts = [(first.decode(a), second.decode(b)) for a, b in zip(one.split(3, 1), two.split(3, 1))]
    assert torch.equal(torch.cat([a for a, _ in parts], 1), expected[0])
    assert torch.equal(torch.cat([b for _, b in parts], 1), expected[1])


def test_a_batch_is_its_clips() -> None:
    codec, latents = golden_codec(), random_latents(2, 3, 16, 2, 3)
    both = codec.decoder().decode(latents)
    each = torch.cat([codec.decoder().decode(clip[None]) for clip in latents])
    assert (both.int() - each.int()).abs().max() <= 1


def test_dropping_the_decoder_frees_its_memory() -> None:
    decoder = golden_codec().decoder()
    decoder.decode(random_latents(1, 3, 16, 2, 3))
    held = [weakref.ref(tensor) for tensor in decoder._cache if isinstance(tensor, torch.Tensor)]
    assert len(held) > 20
    del decoder
    gc.collect()
    assert not any(reference() is not None for reference in held)


def test_decoding_in_bf16_leaves_the_encoder_in_fp32() -> None:
    frames = torch.randint(
        0, 256, (1, 5, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    full = golden_codec()
    half = WanVAE(golden_codec().network, decoder_dtype=torch.bfloat16)
    latents = half.encode(frames)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, full.encode(frames))
    difference = half.decoder().decode(latents).float() - full.decoder().decode(latents).float()
    assert 0 < difference.abs().mean() < 3


@settings(max_examples=5, derandomize=True)
@given(
    base_dim=st.sampled_from([4, 6, 8]),
    dim_mult=st.sampled_from([[1, 2, 2, 4], [1, 1, 2, 2], [1, 2, 4, 4]]),
    num_res_blocks=st.integers(1, 2),
    z_dim=st.integers(2, 5),
    frames=st.integers(1, 4),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    batch=st.integers(1, 2),
    chunk=st.integers(1, 3),
)
def test_it_equals_diffusers_whole(
    base_dim: int,
    dim_mult: list[int],
    num_res_blocks: int,
    z_dim: int,
    frames: int,
    size: tuple[int, int],
    batch: int,
    chunk: int,
) -> None:
    torch.manual_seed(0)
    network = build_network(
        {
            "base_dim": base_dim,
            "dim_mult": dim_mult,
            "num_res_blocks": num_res_blocks,
            "z_dim": z_dim,
            "temperal_downsample": [False, True, True],
            "latents_mean": [0.25 * i for i in range(z_dim)],
            "latents_std": [1.0 + i for i in range(z_dim)],
        }
    )
    codec = WanVAE(network)
    shape = (1, 1, z_dim, 1, 1)
    mean = torch.tensor(network.config["latents_mean"]).view(shape)
    std = torch.tensor(network.config["latents_std"]).view(shape)

    latents = torch.randn(batch, frames, z_dim, *size)
    with torch.no_grad():
        expected = network.decode((latents * std + mean).transpose(1, 2)).sample
    for way in ("a CPU's", "a GPU's"):
        if way == "a GPU's":
            codec = WanVAE(network, for_gpu=True)
        decoder = codec.decoder()
        found = torch.cat([decode_float(decoder, part) for part in latents.split(chunk, 1)], dim=2)
        torch.testing.assert_close(found.clamp(-1, 1), expected, rtol=0, atol=5e-5)

    clip = torch.randint(0, 256, (batch, 4 * frames - 3, 8 * size[0], 8 * size[1], 3), dtype=torch.uint8)
    with torch.no_grad():
        posterior = network.encode(clip.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist
    expected = (posterior.mode().transpose(1, 2) - mean) / std
    torch.testing.assert_close(codec.encode(clip), expected, rtol=0, atol=5e-5)


def test_a_network_without_a_mean_for_each_channel_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="latents_mean must have z_dim"):
        build_network({"base_dim": 4, "z_dim": 4})


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (torch.zeros(1, 3, 8, 2, 2), "float \\[B, F, 16, h, w\\], got torch.float32 \\[1, 3, 8, 2, 2\\]"),
        (torch.zeros(3, 16, 2, 2), "got torch.float32 \\[3, 16, 2, 2\\]"),
        (torch.zeros(1, 3, 16, 2, 2, dtype=torch.uint8), "got torch.uint8"),
        (torch.zeros(1, 0, 16, 2, 2), "empty"),
    ],
)
def test_wrong_latents_are_refused(latents: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        golden_codec().decoder().decode(latents)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 4, 16, 16, 3, dtype=torch.uint8), "1 \\+ a multiple of 4, got 4"),
        (torch.zeros(1, 5, 16, 20, 3, dtype=torch.uint8), "multiples of 8, got 16 x 20"),
        (torch.zeros(1, 5, 16, 16, 3), "uint8 \\[B, T, H, W, 3\\], got torch.float32"),
        (torch.zeros(5, 16, 16, 3, dtype=torch.uint8), "needs a batch axis"),
    ],
)
def test_wrong_frames_are_refused(frames: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        golden_codec().encode(frames)
