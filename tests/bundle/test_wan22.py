"""Wan2.2-TI2V-5B: its sizes, its checkpoints in both layouts, and streams of a small model of its form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pyrf.bundle import load_bundle, save_bundle
from pyrf.bundle.contents import other_model
from pyrf.bundle.json_file import BundleError
from pyrf.bundle.names import dit_from_diffusers, dit_to_diffusers
from pyrf.bundle.wan import WanLayout
from pyrf.bundle.weights import check_names_and_shapes, unfilled
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.models.codecs.wan22_vae import CONFIG, Wan22VAE
from pyrf.models.codecs.wan_vae import build_network
from pyrf.models.dit.model import WanModel
from pyrf.models.wan22 import FPS, HEIGHT, LATENTS, MODELS, TI2V_5B, WIDTH, geometry_of
from pyrf.pipeline import StreamingPipeline
from tests.models.codecs.test_wan22_vae import wan_names
from tests.support import networks
from tests.support.bundle_checks import edit, refused

MODEL = ModelConfig(
    dim=24,
    ffn_dim=48,
    num_heads=2,
    num_layers=2,
    text_len=8,
    text_dim=16,
    freq_dim=32,
    in_channels=48,
    out_channels=48,
)


def narrow_vae() -> Wan22VAE:
    return Wan22VAE(
        networks.randomise(build_network({**CONFIG, "base_dim": 4, "decoder_base_dim": 8})), fps=FPS
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A narrow model with the VAE of Wan2.2, in the layout of diffusers."""
    return save_bundle(
        tmp_path / "saved",
        transformer=networks.dit(MODEL),
        codec=narrow_vae(),
        text_encoder=networks.text_encoder(),
        stream_config=StreamConfig(denoising_steps=(1000, 500)),
        height=32,
        width=64,
    )


def test_the_full_size_is_that_of_the_published_files() -> None:
    """The index of its checkpoint counts 825 tensors and 19,999,150,848 bytes of float32."""
    with unfilled():
        weights = WanModel(MODELS[TI2V_5B]).state_dict()
    assert len(weights) == 825
    assert sum(4 * tensor.numel() for tensor in weights.values()) == 19_999_150_848
    size = LatentSize(HEIGHT // LATENTS.spatial_stride, WIDTH // LATENTS.spatial_stride)
    assert (size, size.tokens) == ((44, 80), 880)
    assert geometry_of(48) is LATENTS
    assert geometry_of(16).spatial_stride == 8


def test_full_size_names_are_diffusers_and_wans() -> None:
    """By both spellings, on the meta device; a model of another size is told by its name."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=24,
            ffn_dim=14336,
            num_layers=30,
            in_channels=48,
            out_channels=48,
            text_dim=4096,
        ).state_dict()
    with unfilled():
        ours = WanModel(MODELS[TI2V_5B]).state_dict()
    shapes = {name: tensor.shape for name, tensor in ours.items()}
    for spelling in (theirs, ours):
        tensors = {dit_from_diffusers(name): tensor for name, tensor in spelling.items()}
        check_names_and_shapes(shapes, tensors, Path("diffusion_pytorch_model.safetensors"))
        assert other_model(tensors, MODELS[TI2V_5B]) is None
        assert other_model(tensors, ModelConfig()) == "it reads 48 latent channels, the model 16"
    assert {dit_to_diffusers(name) for name in ours} == set(theirs)


def published_config(path: Path) -> Path:
    """What Wan's own config.json of the 5B says."""
    values = {
        "_class_name": "WanModel",
        "_diffusers_version": "0.33.0",
        "dim": 3072,
        "eps": 1e-06,
        "ffn_dim": 14336,
        "freq_dim": 256,
        "in_dim": 48,
        "model_type": "ti2v",
        "num_heads": 24,
        "num_layers": 30,
        "out_dim": 48,
        "text_len": 512,
    }
    path.mkdir()
    (path / "config.json").write_text(json.dumps(values))
    (path / "Wan2.2_VAE.pth").touch()
    return path


def test_wans_own_config_is_read(tmp_path: Path) -> None:
    layout = WanLayout(published_config(tmp_path / "Wan2.2-TI2V-5B"))
    assert layout.model_config(text_len=512, rope_theta=10000.0) == MODELS[TI2V_5B]
    assert tmp_path / "Wan2.2-TI2V-5B" / "Wan2.2_VAE.pth" in [
        *layout.files(dit_weights=False),
    ]


def test_a_bundle_streams_from_noise_and_from_an_image(saved: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(saved))
    assert (pipe.fps, pipe.height, pipe.width) == (24.0, 32, 64)
    assert isinstance(pipe.codec, Wan22VAE)
    with pytest.raises(ValueError, match="height must be a positive multiple of 32, got 48; try 64"):
        pipe.check_size(48, 64)
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    video = pipe("a red circle", num_frames=21, seed=1, image=image).frames
    assert video.shape == (21, 32, 64, 3)
    latents = pipe.codec.encode(torch.from_numpy(image)[None, None])
    expected = pipe.codec.decoder().decode(latents)[0, 0].numpy()
    assert np.abs(video[0].astype(int) - expected).max() <= 1
    assert not np.array_equal(video[1:], pipe("a red circle", num_frames=21, seed=1).frames[1:])


def test_what_a_published_index_says_is_taken(saved: Path) -> None:
    """Diffusers' index asks for timesteps per token (`expand_timesteps`) and says nothing of frames."""
    index = json.loads((saved / "model_index.json").read_text())
    index["pyrf"] = {"text_len": MODEL.text_len, "denoising_steps": [1000, 500]}
    (saved / "model_index.json").write_text(json.dumps({**index, "expand_timesteps": True}))
    bundle = load_bundle(saved)
    assert (bundle.fps, bundle.height, bundle.width) == (FPS, HEIGHT, WIDTH)


def test_wans_own_layout_loads(saved: Path, tmp_path: Path) -> None:
    path = published_config(tmp_path / "Wan2.2-TI2V-small")
    edit(path / "config.json", dim=24, ffn_dim=48, num_heads=2, num_layers=2, text_len=8, text_dim=16)
    edit(path / "config.json", freq_dim=32)
    (path / "google" / "umt5-xxl").mkdir(parents=True)
    tokenizer = (saved / "tokenizer" / "tokenizer.json").read_bytes()
    (path / "google" / "umt5-xxl" / "tokenizer.json").write_bytes(tokenizer)
    save_file(networks.dit(MODEL).state_dict(), path / "diffusion_pytorch_model.safetensors")
    torch.save(wan_names(narrow_vae().network), path / "Wan2.2_VAE.pth")
    torch.save(networks.text_encoder().network.state_dict(), path / "models_t5_umt5-xxl-enc-bf16.pth")
    bundle = load_bundle(path)
    assert (bundle.fps, bundle.height, bundle.width) == (FPS, HEIGHT, WIDTH)
    codec = bundle.codec()
    assert isinstance(codec, Wan22VAE)
    latents = torch.randn(1, 2, 48, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.decoder().decode(latents), narrow_vae().decoder().decode(latents))
    ours, theirs = bundle.transformer().state_dict(), load_bundle(saved).transformer().state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_the_tiny_codec_of_its_latents_loads(tmp_path: Path) -> None:
    """taew2_2: patches of 2 x 2 pixels and 48 channels, by the codec of taew2_1."""
    config = TAEHVConfig(latent_channels=48, patch_size=2)
    with torch.device("meta"):
        published = TAEHV(config).state_dict()
    assert published["encoder.0.weight"].shape == (64, 12, 3, 3)
    assert published["decoder.1.weight"].shape == (256, 48, 3, 3)
    small = TAEHVConfig(
        latent_channels=48, patch_size=2, encoder_width=8, decoder_widths=(12, 8, 8, 8), blocks=1
    )
    path = save_bundle(
        tmp_path / "tiny",
        transformer=networks.dit(MODEL),
        codec=TAEHVCodec(networks.randomise(TAEHV(small)), fps=FPS),
        text_encoder=networks.text_encoder(),
        stream_config=StreamConfig(denoising_steps=(1000,)),
        height=32,
        width=64,
    )
    codec = load_bundle(path).codec()
    assert (codec.latent_channels, codec.spatial_stride, codec.temporal_stride) == LATENTS
    assert StreamingPipeline.from_pretrained(str(path))("a red circle", 9).frames.shape == (9, 32, 64, 3)


@pytest.mark.parametrize("name", ["Wan-AI/Wan2.2-T2V-A14B-Diffusers", "Wan-AI/Wan2.2-I2V-A14B"])
def test_two_experts_are_refused_before_anything_is_fetched(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrf.bundle.hub.fetch", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(BundleError, match=r"Wan2\.2-A14B is a model of two experts"):
        load_bundle(name)


def test_a_folder_of_two_experts_is_named(saved: Path, tmp_path: Path) -> None:
    edit(saved / "model_index.json", boundary_ratio=0.875)
    assert "Wan2.2-A14B, a Wan2.2 model of two experts" in refused(saved)
    (tmp_path / "wan" / "high_noise_model").mkdir(parents=True)
    assert "Wan2.2-A14B, a Wan2.2 model of two experts" in refused(tmp_path / "wan")
