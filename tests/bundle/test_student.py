"""Folders of students, and of models that are not one transformer of text to video."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pyrf.bundle import load_bundle
from pyrf.bundle.names import dit_to_diffusers
from pyrf.config import StreamConfig
from tests.support import networks
from tests.support.bundle_checks import edit, refused, same

STATE = dict(networks.dit(seed=1).state_dict())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder as FastVideo saves it, of which a student is only the transformer."""
    path = tmp_path / "student"
    (path / "transformer").mkdir(parents=True)
    config = {"_class_name": "CausalWanTransformer3DModel", "num_layers": 2}
    (path / "transformer" / "config.json").write_text(json.dumps(config))
    weights = {dit_to_diffusers(name): tensor for name, tensor in STATE.items()}
    save_file(weights, path / "transformer" / "diffusion_pytorch_model.safetensors")
    (path / "model_index.json").write_text(json.dumps({"_class_name": "WanCausalDMDPipeline"}))
    return path


def test_a_folder_and_its_transformer(saved: Path, folder: Path) -> None:
    for path in (folder, folder / "transformer", str(folder)):
        loaded = load_bundle(saved, student=path)
        assert loaded.student == folder / "transformer" / "diffusion_pytorch_model.safetensors"
        assert same(loaded.transformer().state_dict(), STATE)
        assert loaded.stream_config == networks.STREAM


def test_a_real_folder_of_diffusers(saved: Path, tmp_path: Path) -> None:
    """In shards, as diffusers writes large ones."""
    from diffusers import WanTransformer3DModel

    theirs = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, ffn_dim=48, num_layers=2, text_dim=16, freq_dim=32
    )
    theirs.load_state_dict({dit_to_diffusers(name): tensor for name, tensor in STATE.items()})
    theirs.save_pretrained(tmp_path / "t", max_shard_size="20KB")
    assert (tmp_path / "t" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    assert same(load_bundle(saved, student=tmp_path / "t").transformer().state_dict(), STATE)
    shards = sorted((tmp_path / "t").glob("*-of-*"))
    shards[0].unlink()
    assert f"{shards[0]}: no such file, of the {len(shards)} that" in refused(saved, student=tmp_path / "t")


def test_a_folder_of_one_file(saved: Path, tmp_path: Path) -> None:
    torch.save({"generator": STATE}, tmp_path / "rewardforcing.pt")
    assert same(load_bundle(saved, student=tmp_path).transformer().state_dict(), STATE)
    torch.save({"generator": STATE}, tmp_path / "other.pt")
    assert refused(saved, student=tmp_path) == (
        f"{tmp_path}: no folder of one student; give its file. "
        "Files of weights there: other.pt, rewardforcing.pt"
    )


def test_a_distributed_checkpoint(saved: Path, tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    folder = tmp_path / "step" / "dcp"
    dcp.save({"generator": STATE}, checkpoint_id=str(folder))
    join = f"{folder}: a distributed checkpoint of torch; join it: python -m"
    assert refused(saved, student=folder).startswith(join)
    assert refused(saved, student=folder.parent).startswith(join)
    assert refused(folder).startswith(join)  # given as the model itself
    (folder / ".metadata").unlink()
    assert refused(saved, student=folder) == (
        f"{folder}: parts of a distributed checkpoint of torch without its .metadata; fetch that, too"
    )


def test_a_folder_of_gguf_files(saved: Path, tmp_path: Path) -> None:
    for name in ("wan-Q4.gguf", "wan-Q8.gguf"):
        (tmp_path / name).write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    assert refused(saved, student=tmp_path).startswith(f"{tmp_path / 'wan-Q4.gguf'}: a GGUF file, quantised")
    assert "GGUF files are not read; give a file" in refused(saved, student="owner/name/wan-Q4.gguf")


def test_what_the_joined_checkpoint_holds_is_read(saved: Path, tmp_path: Path) -> None:
    """The refusal's own advice."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp.save({"generator": STATE}, checkpoint_id=str(tmp_path / "dcp"))
    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "student.pt")
    assert same(load_bundle(saved, student=tmp_path / "student.pt").transformer().state_dict(), STATE)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {}),
        # Without a window they see what they saw in training, 21 latent frames, in whole chunks.
        ({"num_frames_per_block": 2}, {"window_frames": 22, "sink_frames": 0}),
        ({"num_frames_per_block": 1}, {"chunk_frames": 1, "window_frames": 21, "sink_frames": 0}),
        ({"num_frame_per_block": 4}, {"chunk_frames": 4, "window_frames": 24, "sink_frames": 0}),
        (
            {"num_frames_per_block": 3, "local_attn_size": -1, "sink_size": 0},
            {"chunk_frames": 3, "window_frames": 21, "sink_frames": 0},
        ),
        ({"local_attn_size": -1}, {}),
        (
            {"num_frames_per_block": 1, "local_attn_size": 7, "sink_size": 0},
            {"chunk_frames": 1, "window_frames": 7, "sink_frames": 0},
        ),
        ({"local_attn_size": 4}, {"window_frames": 4, "sink_frames": 0}),
    ],
)
def test_a_folder_says_how_its_student_streams(
    saved: Path, folder: Path, said: dict[str, Any], expected: dict[str, int]
) -> None:
    """The bundle's own chunk has 2 latent frames, its window 6."""
    edit(folder / "transformer" / "config.json", **said)
    found = load_bundle(saved, student=folder).stream_config
    assert found == StreamConfig(**{**vars(networks.STREAM), **expected})


def test_a_stream_that_cannot_be_is_refused(saved: Path, folder: Path) -> None:
    config = folder / "transformer" / "config.json"
    edit(config, num_frames_per_block=3, local_attn_size=7)
    assert refused(saved, student=folder).startswith(f"{config}: window_frames must be a multiple")
    edit(config, num_frames_per_block="3")
    assert refused(saved, student=folder).startswith(f"{config}: num_frames_per_block must be a whole number")


@pytest.mark.parametrize("index", ["WanPipeline", "WanCausalDMDPipeline"])
@pytest.mark.parametrize("kind", ["WanTransformer3DModel", "CausalWanTransformer3DModel"])
def test_bundles_of_these_classes_load(copied: Path, index: str, kind: str) -> None:
    edit(copied / "model_index.json", _class_name=index)
    edit(copied / "transformer" / "config.json", _class_name=kind, num_frames_per_block=2)
    assert load_bundle(copied).stream_config == networks.STREAM


def test_two_that_say_how_to_stream_must_agree(copied: Path) -> None:
    edit(copied / "transformer" / "config.json", num_frames_per_block=1)
    assert "says chunk_frames 1, and pyrf in model_index.json says 2; make them agree" in refused(copied)
    index = json.loads((copied / "model_index.json").read_text())
    index["pyrf"] = {n: v for n, v in index["pyrf"].items() if not n.endswith("_frames")}
    (copied / "model_index.json").write_text(json.dumps(index))
    assert load_bundle(copied).stream_config.chunk_frames == 1


PAIR = ["diffusers", "WanTransformer3DModel"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"transformer_2": PAIR, "boundary_ratio": 0.875}, "a Wan2.2 model of two experts"),
        ({"transformer_2": PAIR}, "a Wan2.2 model of two experts"),
        ({"boundary_ratio": 0.9}, "a Wan2.2 model of two experts"),
        ({"image_encoder": ["transformers", "CLIPVisionModel"]}, "an image-to-video model"),
        ({"_class_name": "WanImageToVideoPipeline"}, "must be 'WanPipeline' or 'WanCausalDMDPipeline'"),
        ({"_class_name": "WanVACEPipeline"}, "found 'WanVACEPipeline'"),
    ],
)
def test_other_pipelines_are_refused(copied: Path, values: dict[str, Any], message: str) -> None:
    edit(copied / "model_index.json", **values)
    found = refused(copied)
    assert found.startswith(f"{copied / 'model_index.json'}: ")
    assert message in found


def test_what_a_new_diffusers_writes_of_one_expert_loads(copied: Path) -> None:
    edit(copied / "model_index.json", transformer_2=[None, None], expand_timesteps=False)
    edit(copied / "model_index.json", image_encoder=[None, None], image_processor=[None, None])
    load_bundle(copied)


def test_a_second_expert_that_the_index_forgot(saved: Path, copied: Path) -> None:
    shutil.copytree(copied / "transformer", copied / "transformer_2")
    assert "the second expert of a Wan2.2 model" in refused(copied)
    assert "the second expert of a Wan2.2 model" in refused(saved, student=copied)


def test_wans_own_folder_of_two_experts(tmp_path: Path) -> None:
    (tmp_path / "high_noise_model").mkdir()
    (tmp_path / "low_noise_model").mkdir()
    assert "a Wan2.2 model of two experts (high_noise_model, low_noise_model)" in refused(tmp_path)


def test_a_transformer_given_as_model(copied: Path) -> None:
    assert "a transformer alone; give it as the student" in refused(copied / "transformer")


def test_the_folder_above_a_bundle(copied: Path) -> None:
    assert refused(copied.parent) == f"{copied.parent}: not a bundle, but {copied} is one"
