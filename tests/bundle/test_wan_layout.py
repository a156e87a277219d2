"""Releases in Wan's own layout."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyrf.bundle import Bundle, load_bundle
from pyrf.bundle.names import t5_from_transformers
from pyrf.config import ModelConfig, StreamConfig
from pyrf.models.codecs.wan_vae import WanVAE
from tests.support import networks
from tests.support.bundle_checks import edit, refused, same

GOLDEN_VAE = Path(__file__).parents[1] / "data" / "golden" / "vae" / "vae_weights.safetensors"


@pytest.fixture
def official(saved: Path, tmp_path: Path) -> Path:
    """A small release in Wan's own layout; its weights are those of the small bundle and the golden VAE."""
    path = tmp_path / "Wan2.1-T2V-small"
    (path / "google" / "umt5-xxl").mkdir(parents=True)
    shutil.copy(saved / "tokenizer" / "tokenizer.json", path / "google" / "umt5-xxl")
    config = networks.MODEL
    values = {
        "_class_name": "WanModel",
        "_diffusers_version": "0.30.0",
        "model_type": "t2v",
        "dim": config.dim,
        "ffn_dim": config.ffn_dim,
        "num_heads": config.num_heads,
        "num_layers": config.num_layers,
        "text_len": config.text_len,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "in_dim": 16,
        "out_dim": 16,
        "eps": 1e-6,
    }
    (path / "config.json").write_text(json.dumps(values))
    save_file(networks.dit().state_dict(), path / "diffusion_pytorch_model.safetensors")
    torch.save(load_file(GOLDEN_VAE), path / "Wan2.1_VAE.pth")
    text = load_file(saved / "text_encoder" / "model.safetensors")
    official_text = {t5_from_transformers(name): tensor.bfloat16() for name, tensor in text.items()}
    torch.save(official_text, path / "models_t5_umt5-xxl-enc-bf16.pth")
    return path


def test_wans_own_layout(official: Path) -> None:
    loaded = load_bundle(official)
    assert loaded.model_config == ModelConfig(**{**vars(networks.MODEL), "rope_theta": 10000.0})
    assert loaded.stream_config == StreamConfig()
    assert same(loaded.transformer().state_dict(), networks.dit().state_dict())
    codec = loaded.codec()
    assert isinstance(codec, WanVAE)
    assert codec.decoder().decode(torch.zeros(1, 2, 16, 2, 2)).shape == (1, 5, 16, 16, 3)
    expected = networks.text_encoder().encode(["a red circle"])
    found = loaded.text_encoder().encode(["a red circle"])
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_files_are_those_that_are_read(official: Path) -> None:
    (official / "notes.json").write_text("{}")
    read = {path for path in official.rglob("*") if path.is_file()} - {official / "notes.json"}
    layout = load_bundle(official).layout
    assert set(layout.files(dit_weights=True)) == read
    assert set(layout.files(dit_weights=False)) == read - {official / "diffusion_pytorch_model.safetensors"}


def test_wans_own_layout_in_shards(official: Path) -> None:
    weights = networks.dit().state_dict()
    (official / "diffusion_pytorch_model.safetensors").unlink()
    shard_of = {
        name: f"diffusion_pytorch_model-0000{i % 2 + 1}-of-00002.safetensors"
        for i, name in enumerate(weights)
    }
    for shard in set(shard_of.values()):
        save_file({n: t for n, t in weights.items() if shard_of[n] == shard}, official / shard)
    index = official / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shard_of}))
    assert same(load_bundle(official).transformer().state_dict(), weights)


@pytest.mark.parametrize(
    "file",
    [
        "diffusion_pytorch_model.safetensors",
        "Wan2.1_VAE.pth",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl/tokenizer.json",
    ],
)
def test_a_file_missing_from_wans_layout_is_named(official: Path, file: str) -> None:
    (official / file).unlink()
    message = refused(official)
    assert message.startswith(str(official / file))
    assert "missing" in message


@pytest.mark.parametrize("part", ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
def test_a_pickle_of_something_else_is_refused(official: Path, part: str) -> None:
    torch.save({"other": torch.zeros(2)}, official / part)
    use = Bundle.codec if part.startswith("Wan") else Bundle.text_encoder
    message = refused(official, use)
    assert message.startswith(str(official / part))
    assert "other [2] is not part of the network" in message


def test_an_image_to_video_release_is_refused(official: Path) -> None:
    edit(official / "config.json", model_type="i2v")
    assert "model_type must be 't2v' or 'ti2v', found 'i2v'" in refused(official)
