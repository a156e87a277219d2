"""Everything that can be wrong with a bundle is named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_checks import edit, refused
from safetensors.torch import load_file, save_file

from pyrf.bundle import Bundle, BundleError, load_bundle

PARTS = {
    "transformer/diffusion_pytorch_model.safetensors": Bundle.transformer,
    "vae/diffusion_pytorch_model.safetensors": Bundle.codec,
    "text_encoder/model.safetensors": Bundle.text_encoder,
}
CONFIGS = ["model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json"]


@pytest.mark.parametrize("file", [*PARTS, *CONFIGS, "tokenizer/tokenizer.json"])
def test_a_missing_file_is_named(copied: Path, file: str) -> None:
    (copied / file).unlink()
    message = refused(copied)
    assert message.startswith(str(copied if file == "model_index.json" else copied / file))


@pytest.mark.parametrize("file", PARTS)
def test_a_truncated_file_is_named(copied: Path, file: str) -> None:
    path = copied / file
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(copied, PARTS[file]).startswith(f"{path}: damaged or truncated")


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
        ("model_index.json", {"pyrf": {"fps": 0}}, "fps must be a positive number, found 0"),
        ("model_index.json", {"pyrf": {"height": "tall"}}, "height must be a positive number, found 'tall'"),
        ("model_index.json", {"pyrf": {"window_frames": 4}}, "window_frames must be a multiple"),
        ("model_index.json", {"pyrf": {"chunk_frames": "3"}}, "model_index.json: "),
        ("model_index.json", {"pyrf": {"denoising_steps": 4}}, "model_index.json: "),
        (
            "transformer/config.json",
            {"_class_name": "FluxTransformer2DModel"},
            "must be 'WanTransformer3DModel'",
        ),
        ("transformer/config.json", {"patch_size": [1, 4, 4]}, r"patch_size must be \[1, 2, 2\]"),
        ("transformer/config.json", {"image_dim": 1280}, "image_dim must be None, found 1280"),
        ("transformer/config.json", {"qk_norm": "layer"}, "qk_norm must be 'rms_norm_across_heads'"),
        ("transformer/config.json", {"num_layers": None}, "num_layers must be a number, found None"),
        ("transformer/config.json", {"num_layers": 0}, "num_layers must be at least 1"),
        ("transformer/config.json", {"num_layers": True}, "num_layers must be a number, found True"),
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
        ("text_encoder/config.json", {"model_type": "t5"}, "model_type must be 'umt5', found 't5'"),
        ("text_encoder/config.json", {"feed_forward_proj": "relu"}, "feed_forward_proj must be 'gated-gelu'"),
        ("text_encoder/config.json", {"num_heads": 0}, "num_heads must be at least 1"),
    ],
)
def test_wrong_part_configs_are_named(copied: Path, file: str, values: dict[str, Any], message: str) -> None:
    edit(copied / file, **values)
    use = Bundle.codec if file.startswith("vae") else Bundle.text_encoder
    with pytest.raises(BundleError, match=message) as caught:
        use(load_bundle(copied))
    assert str(caught.value).startswith(str(copied / file))


def test_parts_that_do_not_fit_are_refused(copied: Path) -> None:
    edit(copied / "transformer" / "config.json", text_dim=20, in_channels=4)
    assert "the text encoder's rows have 16 values, the transformer reads 20" in refused(
        copied, Bundle.text_encoder
    )
    assert "the codec has 16 latent channels, the transformer 4" in refused(copied, Bundle.codec)


def test_a_directory_that_is_no_bundle(tmp_path: Path) -> None:
    assert "neither model_index.json (diffusers layout) nor Wan's config.json" in refused(tmp_path)
