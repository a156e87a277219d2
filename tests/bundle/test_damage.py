"""Everything that can be wrong with a bundle is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyrf.bundle import Bundle, BundleError, load_bundle
from pyrf.bundle.names import dit_to_diffusers
from tests.support import networks
from tests.support.bundle_checks import edit, refused

PARTS: dict[str, Callable[[Bundle], object]] = {
    "transformer/diffusion_pytorch_model.safetensors": Bundle.transformer,
    "vae/diffusion_pytorch_model.safetensors": Bundle.codec,
    "text_encoder/model.safetensors": Bundle.text_encoder,
}
NAN, INF = float("nan"), float("inf")  # which JSON as Python writes it can hold
CONFIGS = ["model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json"]


@pytest.mark.parametrize("file", [*PARTS, *CONFIGS, "tokenizer/tokenizer.json"])
def test_a_missing_file_is_named(copied: Path, file: str) -> None:
    (copied / file).unlink()
    message = refused(copied)
    assert message.startswith(str(copied if file == "model_index.json" else copied / file))


@pytest.mark.parametrize("file", PARTS)
def test_a_truncated_file_is_named(copied: Path, file: str) -> None:
    path = copied / file
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    expected = f"{path}: a truncated safetensors file: it has {size - 100} bytes and needs {size}; fetch it"
    assert refused(copied, PARTS[file]).startswith(expected)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("file", PARTS)
def test_a_value_that_is_not_finite_is_named(copied: Path, file: str, bad: float) -> None:
    weights = load_file(copied / file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = bad
    save_file(weights, copied / file)
    message = refused(copied, PARTS[file])
    assert message.startswith(f"{copied / file}: ")
    assert f" {list(weights[name].shape)} has 1 of {weights[name].numel()} values that are" in message


@pytest.mark.parametrize("file", PARTS)
def test_a_wrong_shape_is_named(copied: Path, file: str) -> None:
    weights = load_file(copied / file)
    name = next(name for name in sorted(weights) if weights[name].ndim == 2 or weights[name].ndim == 4)
    weights[name] = torch.zeros(3, 5)
    save_file(weights, copied / file)
    message = refused(copied, PARTS[file])
    assert message.startswith(f"{copied / file}: ")
    assert "expected shape" in message
    assert "found [3, 5]" in message


@pytest.mark.parametrize("file", CONFIGS)
@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_damaged_config_is_named(copied: Path, file: str, text: str) -> None:
    (copied / file).write_text(text)
    message = refused(copied)
    assert message.startswith(str(copied / file))
    assert "JSON" in message


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("model_index.json", {"_class_name": "WanImageToVideoPipeline"}, "_class_name must be 'WanPipeline'"),
        ("model_index.json", {"pyrf": []}, "pyrf must be an object"),
        ("model_index.json", {"pyrf": {"sink": 3}}, r"unknown settings \['sink'\]"),
        ("model_index.json", {"pyrf": {"fps": 0}}, "fps must be a positive number, got 0"),
        ("model_index.json", {"pyrf": {"height": "tall"}}, "height must be a whole number, got 'tall'"),
        ("model_index.json", {"pyrf": {"window_frames": 4}}, "window_frames must be a multiple"),
        ("model_index.json", {"pyrf": {"fps": NAN}}, "fps must be a positive number, got nan"),
        ("model_index.json", {"pyrf": {"fps": INF}}, "fps must be a positive number, got inf"),
        ("model_index.json", {"pyrf": {"fps": 10**400}}, "fps must be a positive number, got 1000"),
        ("model_index.json", {"pyrf": {"fps": 1e-5}}, r"fps must lie in 0.001..100000, got 1e-05"),
        ("model_index.json", {"pyrf": {"rope_theta": NAN}}, "rope_theta must be a positive number, got nan"),
        ("model_index.json", {"pyrf": {"shift": NAN}}, "shift must be a positive number, got nan"),
        ("model_index.json", {"pyrf": {"shift": INF}}, "shift must be a positive number, got inf"),
        ("model_index.json", {"pyrf": {"sink_alpha": "1"}}, r"sink_alpha must lie in \[0, 1\], got '1'"),
        ("model_index.json", {"pyrf": {"chunk_frames": "3"}}, "chunk_frames must be a whole number, got '3'"),
        ("model_index.json", {"pyrf": {"chunk_frames": 3.0}}, "chunk_frames must be a whole number, got 3.0"),
        ("model_index.json", {"pyrf": {"window_frames": 9.0}}, "window_frames must be a whole number"),
        (
            "model_index.json",
            {"pyrf": {"window_frames": 3 * 10**30}},
            "window_frames must be at most 4096",
        ),
        ("model_index.json", {"pyrf": {"sink_frames": False}}, "sink_frames must be a whole number"),
        (
            "model_index.json",
            {"pyrf": {"denoising_steps": 4}},
            "denoising_steps must hold whole numbers, got 4",
        ),
        (
            "model_index.json",
            {"pyrf": {"denoising_steps": [1000, 750.5]}},
            "each of denoising_steps must be a whole number, got 750.5",
        ),
        (
            "transformer/config.json",
            {"_class_name": "FluxTransformer2DModel"},
            "must be 'WanTransformer3DModel'",
        ),
        ("transformer/config.json", {"patch_size": [1, 4, 4]}, r"patch_size must be \[1, 2, 2\]"),
        ("transformer/config.json", {"image_dim": 1280}, "image_dim must be None, found 1280"),
        ("transformer/config.json", {"qk_norm": "layer"}, "qk_norm must be 'rms_norm_across_heads'"),
        ("transformer/config.json", {"num_layers": None}, "num_layers must be a whole number, got None"),
        ("transformer/config.json", {"num_layers": 0}, "num_layers must be at least 1"),
        ("transformer/config.json", {"num_layers": True}, "num_layers must be a whole number, got True"),
        ("transformer/config.json", {"num_layers": 6.0}, "num_layers must be a whole number, got 6.0"),
        (
            "transformer/config.json",
            {"num_attention_heads": 4.0},
            "num_attention_heads must be a whole number",
        ),
        ("transformer/config.json", {"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ("transformer/config.json", {"eps": NAN}, "eps must be a positive number, got nan"),
    ],
)
def test_wrong_settings_are_named(copied: Path, file: str, values: dict[str, Any], message: str) -> None:
    edit(copied / file, **values)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(copied)
    assert str(caught.value).startswith(str(copied / file))


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("vae/config.json", {"_class_name": "AutoencoderKL"}, "must be AutoencoderKLWan or TAEHV"),
        ("vae/config.json", {"widths": [1]}, "unknown keys"),
        ("vae/config.json", {"_class_name": "AutoencoderKLWan", "patch_size": 2}, "Wan2.2"),
        ("vae/config.json", {"_class_name": "AutoencoderKLWan", "is_residual": True}, "Wan2.2"),
        ("text_encoder/config.json", {"model_type": "t5"}, "model_type must be 'umt5', found 't5'"),
        ("text_encoder/config.json", {"feed_forward_proj": "relu"}, "feed_forward_proj must be 'gated-gelu'"),
        ("vae/config.json", {"blocks": "3"}, "blocks must be a whole number, got '3'"),
        ("vae/config.json", {"latent_channels": 1.5}, "latent_channels must be a whole number, got 1.5"),
        ("vae/config.json", {"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ("vae/config.json", {"decoder_widths": 5}, "decoder_widths must be four whole numbers, got 5"),
        ("vae/config.json", {"decoder_widths": [1, 2]}, r"must be four whole numbers, got \(1, 2\)"),
        (
            "vae/config.json",
            {"decoder_widths": [8, 8, 8, 0.5]},
            "each of decoder_widths must be a whole number",
        ),
        ("vae/config.json", {"upscale": "abc"}, "upscale must be three of true and false, got 'abc'"),
        ("text_encoder/config.json", {"num_heads": 0}, "num_heads must be at least 1"),
        ("text_encoder/config.json", {"num_layers": 2.0}, "num_layers must be a whole number, got 2.0"),
        ("text_encoder/config.json", {"d_ff": 1.5}, "d_ff must be a whole number, got 1.5"),
        ("text_encoder/config.json", {"layer_norm_epsilon": NAN}, "layer_norm_epsilon must be a positive"),
    ],
)
def test_wrong_part_configs_are_named(copied: Path, file: str, values: dict[str, Any], message: str) -> None:
    edit(copied / file, **values)
    use = Bundle.codec if file.startswith("vae") else Bundle.text_encoder
    with pytest.raises(BundleError, match=message) as caught:
        use(load_bundle(copied))
    assert str(caught.value).startswith(str(copied / file))


def test_parts_that_do_not_fit_are_refused(copied: Path) -> None:
    other = networks.dit(replace(networks.MODEL, text_dim=20, in_channels=4))
    weights = {dit_to_diffusers(name): tensor for name, tensor in other.state_dict().items()}
    save_file(weights, copied / "transformer" / "diffusion_pytorch_model.safetensors")
    edit(copied / "transformer" / "config.json", text_dim=20, in_channels=4)
    assert "the text encoder's rows have 16 values, the transformer reads 20" in refused(
        copied, Bundle.text_encoder
    )
    assert "the codec has 16 latent channels, the transformer 4" in refused(copied, Bundle.codec)


def test_a_directory_that_is_no_bundle(tmp_path: Path) -> None:
    assert "neither model_index.json (diffusers layout) nor Wan's config.json" in refused(tmp_path)
