"""The codec of Wan2.2 against diffusers' own whole decode and encode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify as diffusers_patchify
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrf.bundle.codecs import WAN_FAMILIES, CodecSource, codec_content, family_of
from pyrf.bundle.json_file import BundleError, JsonFile
from pyrf.bundle.names import vae22_to_diffusers
from pyrf.bundle.weights import Placement
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.models.codecs.wan22_vae import CONFIG, Wan22VAE
from pyrf.models.codecs.wan_vae import build_network
from pyrf.models.wan22 import HEIGHT, LATENTS, WIDTH
from tests.models.codecs.test_wan_vae import decode_float


def small(z_dim: int = 3, **changes: Any) -> AutoencoderKLWan:
    """Narrow, with the published form, and weights that leave no part of it idle."""
    means = {"latents_mean": [0.25 * i for i in range(z_dim)], "latents_std": [1.0 + i for i in range(z_dim)]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(
            {**CONFIG, "base_dim": 4, "decoder_base_dim": 8, "z_dim": z_dim, **means, **changes}
        )
    return network.eval()


def test_it_is_a_codec_of_16_by_16_pixels() -> None:
    with torch.device("meta"):
        network = build_network(CONFIG)
    codec: Codec = Wan22VAE(small(), fps=24.0)
    assert (codec.spatial_stride, codec.temporal_stride, codec.fps) == (16, 4, 24.0)
    assert (network.config["z_dim"], codec.spatial_stride, codec.temporal_stride) == LATENTS
    assert latent_size(HEIGHT, WIDTH, codec) == (44, 80)
    assert sum(p.numel() for p in network.parameters()) == 704_688_668


@settings(max_examples=6, derandomize=True)
@given(
    dim_mult=st.sampled_from([[1, 2, 4, 4], [1, 1, 2, 2]]),
    decoder_base_dim=st.sampled_from([4, 8]),
    num_res_blocks=st.integers(1, 2),
    patch_size=st.sampled_from([1, 2]),
    z_dim=st.integers(2, 5),
    frames=st.integers(1, 4),
    size=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    batch=st.integers(1, 2),
    chunk=st.integers(1, 3),
)
def test_it_equals_diffusers_whole(
    dim_mult: list[int],
    decoder_base_dim: int,
    num_res_blocks: int,
    patch_size: int,
    z_dim: int,
    frames: int,
    size: tuple[int, int],
    batch: int,
    chunk: int,
) -> None:
    """Decoding and encoding, chunk by chunk, as on a CPU and as on a GPU, in float32."""
    channels = 3 * patch_size**2
    network = small(
        z_dim,
        dim_mult=dim_mult,
        decoder_base_dim=decoder_base_dim,
        num_res_blocks=num_res_blocks,
        patch_size=patch_size,
        in_channels=channels,
        out_channels=channels,
    )
    shape = (1, 1, z_dim, 1, 1)
    mean = torch.tensor(network.config["latents_mean"]).view(shape)
    std = torch.tensor(network.config["latents_std"]).view(shape)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, frames, z_dim, *size, generator=generator)
    pixels = (batch, 4 * frames - 3, 8 * patch_size * size[0], 8 * patch_size * size[1], 3)
    clip = torch.randint(0, 256, pixels, dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        decoded = network.decode((latents * std + mean).transpose(1, 2)).sample
        posterior = network.encode(clip.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist
    encoded = (posterior.mode().transpose(1, 2) - mean) / std

    for for_gpu in (False, True):
        codec = Wan22VAE(network, for_gpu=for_gpu)
        decoder = codec.decoder()
        found = torch.cat([decode_float(decoder, part) for part in latents.split(chunk, 1)], dim=2)
        torch.testing.assert_close(found.clamp(-1, 1), decoded, rtol=0, atol=5e-5)
    encoder, rest = codec.encoder(), clip[:, 4 * chunk - 3 :]
    parts = [clip[:, : 4 * chunk - 3], *(rest.split(4 * chunk, 1) if rest.shape[1] else ())]
    found = torch.cat([encoder.encode(part) for part in parts], dim=1)
    torch.testing.assert_close(found, encoded, rtol=0, atol=5e-5)
    assert torch.equal(codec.encode(clip), found)


@pytest.mark.parametrize("split", [[3, 3, 3], [1] * 9, [2, 7]])
def test_decoding_in_chunks_equals_the_whole_exactly(split: list[int]) -> None:
    codec = Wan22VAE(small())
    latents = torch.randn(1, 9, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    decoder = codec.decoder()
    parts = [decoder.decode(part) for part in latents.split(split, 1)]
    assert [part.shape[1] for part in parts] == [4 * split[0] - 3, *(4 * n for n in split[1:])]
    whole = codec.decoder().decode(latents)
    assert torch.equal(torch.cat(parts, 1), whole)
    assert whole.shape == (1, 33, 32, 48, 3)
    assert 2 < whole.float().std() < 120


def test_pixels_are_folded_as_diffusers_folds_them() -> None:
    codec, x = Wan22VAE(small()), torch.arange(2 * 3 * 2 * 4 * 6.0).view(2, 3, 2, 4, 6)
    assert torch.equal(codec.folded(x), diffusers_patchify(x, 2))
    assert torch.equal(codec.unfolded(codec.folded(x)), x)


def test_the_decoder_of_a_gpu_keeps_names_and_values() -> None:
    plain, other = small().state_dict(), Wan22VAE(small(), for_gpu=True).network.state_dict()
    assert list(other) == list(plain)
    assert all(torch.equal(other[name], tensor) for name, tensor in plain.items())


def wan_names(network: AutoencoderKLWan) -> dict[str, torch.Tensor]:
    """A network's weights under the names of Wan's own file."""
    residual = {"norm1": "0", "conv1": "2", "norm2": "3", "conv2": "6"}
    middle = {"resnets.0": "middle.0", "attentions.0": "middle.1", "resnets.1": "middle.2"}
    ends = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}
    result = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[0] in ("quant_conv", "post_quant_conv"):
            new = [{"quant_conv": "conv1", "post_quant_conv": "conv2"}[parts[0]], parts[1]]
        elif parts[1] in ends:
            new = [parts[0], ends[parts[1]], *parts[2:]]
        elif parts[1] == "mid_block":
            new = [parts[0], middle[".".join(parts[2:4])], *parts[4:]]
        else:
            way, level = parts[1].removesuffix("_blocks"), parts[2]
            blocks = 2 if way == "down" else 3
            index, rest = (parts[4], parts[5:]) if parts[3] == "resnets" else (str(blocks), parts[4:])
            new = [parts[0], f"{way}samples", level, f"{way}samples", index, *rest]
        if "resnets" in parts and new[-2] in residual:
            new[-2:-1] = ["residual", residual[new[-2]]]
        result[".".join(new).replace("conv_shortcut", "shortcut")] = tensor
    return result


def test_wans_own_file_has_the_same_weights() -> None:
    network = small(48, **{name: CONFIG[name] for name in ("latents_mean", "latents_std")})
    wan = wan_names(network)
    assert "encoder.downsamples.1.downsamples.2.time_conv.weight" in wan
    assert "decoder.upsamples.0.upsamples.3.resample.1.weight" in wan
    renamed = {vae22_to_diffusers(name): tensor for name, tensor in wan.items()}
    assert renamed.keys() == network.state_dict().keys()
    family = WAN_FAMILIES[1]
    path = Path("Wan2.2_VAE.pth")
    config, weights = family.from_wan(wan, path)
    codec = family.load(
        CodecSource(path, config, path, weights), Placement(torch.float32, torch.device("cpu")), 24.0
    )
    assert isinstance(codec, Wan22VAE)
    latents = torch.randn(1, 2, 48, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.decoder().decode(latents), Wan22VAE(network).decoder().decode(latents))


def test_a_saved_codec_is_known_by_its_config(tmp_path: Path) -> None:
    codec = Wan22VAE(small(), fps=24.0)
    family, config, weights = codec_content(codec)
    (tmp_path / "config.json").write_text(json.dumps(config))
    file = JsonFile(tmp_path / "config.json")
    assert family_of(file) is family is WAN_FAMILIES[1]
    source = CodecSource(file.path, file.values, file.path, weights)
    placement = Placement(torch.float32, torch.device("cpu"))
    again = family.load(source, placement, 24.0)
    frames = torch.zeros(1, 5, 16, 16, 3, dtype=torch.uint8)
    assert torch.equal(again.encode(frames), codec.encode(frames))
    for changes in ({"is_residual": False}, {"patch_size": None}, {"patch_size": 0}):
        with pytest.raises(BundleError, match=r"a VAE of Wan2\.2 has patch_size 2 and is_residual true"):
            family.load(source._replace(config={**config, **changes}), placement, 24.0)
