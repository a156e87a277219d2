"""Weights of another model, or of another part, are named for what they are before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrf.bundle import Bundle, load_bundle
from pyrf.bundle.contents import contents_of, other_model
from pyrf.bundle.names import t5_from_transformers, t5_to_transformers
from pyrf.bundle.states import read_part
from pyrf.bundle.weights import CheckpointError
from pyrf.config import ModelConfig
from pyrf.models.dit.model import WanModel
from pyrf.models.wan21 import MODELS
from tests.support import networks
from tests.support.bundle_checks import refused, same

STATE = dict(networks.dit().state_dict())
DIM = networks.MODEL.dim
ONE = torch.zeros(2, 2)
FILES = {
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "codec": "vae/diffusion_pytorch_model.safetensors",
    "text encoder": "text_encoder/model.safetensors",
}
PHRASES = {
    "transformer": "a transformer of Wan",
    "codec": "a tiny codec",
    "text encoder": "a text encoder of UMT5",
}
NO_STUDENTS: dict[str, dict[str, Tensor]] = {
    "a LoRA": {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": ONE},
    "a LoRA, which": {"lora_unet_blocks_0_self_attn_q.lora_up.weight": ONE},
    "a LoRA, which changes": {"transformer.blocks.0.attn1.to_q.lora_A.default.weight": ONE},
    "a LoRA, which changes a": {
        "blocks.0.self_attn.q.diff": ONE,
        "blocks.0.self_attn.q.diff_b": torch.ones(2),
    },
    "a VACE model": {**STATE, "vace_blocks.0.self_attn.q.weight": ONE},
    "an image-to-video model": {**STATE, "img_emb.proj.0.weight": ONE},
    "an image-to-video model: it has": {**STATE, "condition_embedder.image_embedder.norm1.weight": ONE},
    "an image-to-video model: it reads 36": {
        **STATE,
        "patch_embedding.weight": torch.zeros(DIM, 36, 1, 2, 2),
    },
    "a speech-to-video model": {**STATE, "audio_injector.injector.0.q.weight": ONE},
    "an animation model": {**STATE, "face_adapter.fuser_blocks.0.q.weight": ONE},
    "a model with controls": {**STATE, "control_adapter.conv.weight": ONE},
    "an image or text encoder of CLIP's kind": {"vision_model.encoder.layers.0.mlp.fc1.weight": ONE},
    "an image or text encoder of CLIP": {"visual.transformer.0.attn.to_qkv.weight": ONE},
    "a model of another family": {"double_blocks.0.img_attn.qkv.weight": ONE},
}


@pytest.mark.parametrize("what", NO_STUDENTS)
def test_what_is_no_student(saved: Path, tmp_path: Path, what: str) -> None:
    save_file(NO_STUDENTS[what], tmp_path / "s.safetensors")
    message = refused(saved, student=tmp_path / "s.safetensors")
    assert message.startswith(f"{tmp_path / 's.safetensors'}: {what}")
    assert "where the transformer is expected; " in message


@pytest.mark.parametrize("expected", FILES)
@pytest.mark.parametrize("given", FILES)
def test_a_part_in_the_place_of_another(copied: Path, expected: str, given: str) -> None:
    if expected == given:
        return
    weights = load_file(copied / FILES[given])
    save_file(weights, copied / FILES[expected])
    message = refused(copied)
    assert message.startswith(f"{copied / FILES[expected]}: {PHRASES[given]}")
    assert message.endswith(f"where the {expected} is expected; give a file of the {expected}")


def test_a_vae_of_wan_given_as_student(saved: Path) -> None:
    vae = Path(__file__).parents[1] / "data" / "golden" / "vae" / "vae_weights.safetensors"
    assert refused(saved, student=vae).startswith(f"{vae}: a VAE, where the transformer is expected")


def test_t5_where_umt5_is_expected(copied: Path) -> None:
    """The oracle is transformers: T5 (v1.1) has its table of positions in the first block alone."""
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    sizes: dict[str, Any] = {
        "vocab_size": 16,
        "d_model": 16,
        "d_kv": 12,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
    }
    sizes |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}
    sizes["feed_forward_proj"] = "gated-gelu"
    theirs: dict[str, Any] = {
        "t5": T5EncoderModel(T5Config(**sizes)),
        "umt5": UMT5EncoderModel(UMT5Config(**sizes)),
    }
    path = copied / FILES["text encoder"]
    theirs["t5"].save_pretrained(copied / "other", safe_serialization=True)
    path.write_bytes((copied / "other" / "model.safetensors").read_bytes())
    assert refused(copied).startswith(f"{path}: a text encoder of T5 (v1.1), where the text encoder is")
    theirs["umt5"].save_pretrained(copied / "good", safe_serialization=True)
    path.write_bytes((copied / "good" / "model.safetensors").read_bytes())
    found = load_bundle(copied).text_encoder().network.state_dict()
    expected = theirs["umt5"].encoder.state_dict()
    assert torch.equal(found["blocks.1.ffn.fc2.weight"], expected["block.1.layer.1.DenseReluDense.wo.weight"])


@pytest.mark.parametrize(
    "names", [("shared",), ("encoder.embed_tokens",), ("shared", "encoder.embed_tokens")]
)
def test_the_tied_table_under_any_name(copied: Path, names: tuple[str, ...]) -> None:
    path = copied / FILES["text encoder"]
    weights = load_file(path)
    table = weights.pop("shared.weight").clone()  # not of the file, which is written anew
    save_file(weights | {f"{name}.weight": table.clone() for name in names}, path)
    found = load_bundle(copied).text_encoder().network.state_dict()
    assert torch.equal(found["token_embedding.weight"], table)


def test_two_tables_that_differ_are_refused(copied: Path) -> None:
    path = copied / FILES["text encoder"]
    weights = load_file(path)
    save_file(weights | {"encoder.embed_tokens.weight": weights["shared.weight"] + 1}, path)
    assert "differ; UMT5 has one table" in refused(copied, Bundle.text_encoder)


def test_a_decoder_beside_the_text_encoder_is_left(copied: Path) -> None:
    path = copied / FILES["text encoder"]
    weights = load_file(path)
    save_file(
        weights | {"decoder.block.0.layer.0.SelfAttention.q.weight": ONE, "lm_head.weight": torch.ones(2)},
        path,
    )
    assert load_bundle(copied).text_encoder().network.config.num_layers == 2


def test_text_weights_under_both_spellings_are_refused(copied: Path) -> None:
    path = copied / FILES["text encoder"]
    weights = load_file(path)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    save_file(weights | {t5_from_transformers(name): weights[name].clone()}, path)
    assert "another key both mean" in refused(copied, Bundle.text_encoder)
    assert t5_to_transformers(t5_from_transformers(name)) == name


def shapes(config: ModelConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(WanModel(config).state_dict())


def test_a_model_of_another_size_is_told_by_its_name() -> None:
    small, large = MODELS["Wan2.1-T2V-1.3B"], MODELS["Wan2.1-T2V-14B"]
    assert other_model(shapes(large), small) == (
        "it is Wan2.1-T2V-14B (40 layers of dim 5120), the model Wan2.1-T2V-1.3B (30 layers of dim 1536)"
    )
    assert other_model(shapes(small), small) is None
    assert contents_of(shapes(large)) == ("transformer", "a transformer of Wan", "")


def test_a_student_of_another_size(saved: Path, tmp_path: Path) -> None:
    config = replace(networks.MODEL, dim=36, num_layers=3)
    save_file(networks.dit(config).state_dict(), tmp_path / "s.safetensors")
    assert "it is of 3 layers of dim 36, the model of 2 layers of dim 24; give the model and the student" in (
        refused(saved, student=tmp_path / "s.safetensors")
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((DIM, 16, 1, 4, 4), "it covers patches of 1 x 4 x 4, the model's are 1 x 2 x 2"),
        ((DIM, 48, 1, 2, 2), "it reads 48 latent channels, the model 16"),
    ],
)
def test_other_patches_and_channels(
    saved: Path, tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    save_file({**STATE, "patch_embedding.weight": torch.zeros(shape)}, tmp_path / "s.safetensors")
    assert message in refused(saved, student=tmp_path / "s.safetensors")


def test_one_shard_is_no_student(saved: Path, tmp_path: Path) -> None:
    half = dict(list(STATE.items())[: len(STATE) // 2])
    save_file(half, tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors")
    message = refused(saved, student=tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors")
    assert (
        "one shard of 2; give the index beside it, diffusion_pytorch_model.safetensors.index.json" in message
    )


def test_real_files_of_diffusers(saved: Path, tmp_path: Path) -> None:
    """What diffusers saves of its image-to-video and VACE models, and of its VAE."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel

    sizes = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "ffn_dim": 48,
        "num_layers": 2,
        "text_dim": 16,
        "freq_dim": 32,
    }
    WanTransformer3DModel(**sizes, in_channels=36, image_dim=8, added_kv_proj_dim=24).save_pretrained(
        tmp_path / "i2v"
    )
    WanVACETransformer3DModel(**sizes, vace_layers=[0], vace_in_channels=96).save_pretrained(
        tmp_path / "vace"
    )
    AutoencoderKLWan(base_dim=4).save_pretrained(tmp_path / "vae")
    for name, what in (("i2v", "an image-to-video model"), ("vace", "a VACE model"), ("vae", "a VAE")):
        path = tmp_path / name / "diffusion_pytorch_model.safetensors"
        with pytest.raises(CheckpointError, match=f"{path}: {what}.*, where the transformer is expected"):
            read_part(path, "transformer")
    assert same(
        read_part(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", "codec"),
        load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors"),
    )
