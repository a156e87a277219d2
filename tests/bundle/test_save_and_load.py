"""Bundles in the diffusers layout: saved, and read back by us and by others."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyrf.bundle import BundleError, load_bundle, save, save_bundle
from pyrf.config import StreamConfig
from pyrf.models.codecs.wan_vae import WanVAE, build_network
from tests.support import networks
from tests.support.bundle_checks import edit, same


def test_a_bundle_comes_back_as_it_was_saved(saved: Path) -> None:
    loaded = load_bundle(saved)
    assert loaded.model_config == networks.MODEL
    assert loaded.stream_config == networks.STREAM
    assert (loaded.fps, loaded.height, loaded.width) == (12.0, 32, 48)
    assert same(loaded.transformer().state_dict(), networks.dit().state_dict())
    codec = loaded.codec()
    latents = torch.randn(1, 3, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.decoder().decode(latents), networks.codec().decoder().decode(latents))
    assert codec.fps == 12.0
    prompts = ["a red circle", ""]
    assert torch.equal(loaded.text_encoder().encode(prompts), networks.text_encoder().encode(prompts))


def test_parts_load_in_other_dtypes(saved: Path) -> None:
    loaded = load_bundle(saved)
    assert {t.dtype for t in loaded.transformer(torch.bfloat16).state_dict().values()} == {torch.bfloat16}
    assert loaded.text_encoder(torch.bfloat16).encode(["a"]).dtype == torch.bfloat16


def test_a_loaded_transformer_can_be_trained(saved: Path) -> None:
    model = load_bundle(saved).transformer()
    prompt = model.encode_prompt(torch.randn(1, 8, 16))
    model(torch.randn(1, 2, 16, 4, 4), torch.tensor([500.0]), prompt).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def their_transformer(kind: Any, path: Path) -> Any:
    """diffusers' transformer from a bundle (its from_pretrained needs one more package for this model)."""
    network = kind.from_config(kind.load_config(path / "transformer"))
    network.load_state_dict(load_file(path / "transformer" / "diffusion_pytorch_model.safetensors"))
    return network


def test_other_libraries_read_a_saved_bundle(saved: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
    from transformers import AutoTokenizer, UMT5EncoderModel

    assert FlowMatchEulerDiscreteScheduler.from_pretrained(saved / "scheduler").config.shift == 3.0
    tokenizer = AutoTokenizer.from_pretrained(saved / "tokenizer")
    ids = tokenizer(["a red circle"], return_tensors="pt").input_ids
    theirs = UMT5EncoderModel.from_pretrained(saved / "text_encoder").eval()
    ours = networks.text_encoder().encode(["a red circle"])
    with torch.no_grad():
        rows = theirs(ids).last_hidden_state
    torch.testing.assert_close(rows, ours[:, : rows.shape[1]], rtol=0, atol=2e-5)
    their_dit = their_transformer(WanTransformer3DModel, saved)
    assert torch.equal(their_dit.proj_out.weight, networks.dit().head.head.weight)


def test_what_diffusers_saves_is_read(copied: Path) -> None:
    """Sharded transformer, doubled embedding of the text encoder: the forms on the hub."""
    from diffusers import WanTransformer3DModel
    from transformers import UMT5EncoderModel

    dit = their_transformer(WanTransformer3DModel, copied)
    text = UMT5EncoderModel.from_pretrained(copied / "text_encoder")
    for part in ("transformer", "text_encoder"):
        shutil.rmtree(copied / part)
    dit.save_pretrained(copied / "transformer", max_shard_size="20KB")
    assert (copied / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    text.save_pretrained(copied / "text_encoder")
    weights = copied / "text_encoder" / "model.safetensors"
    stored = load_file(weights)
    save_file(stored | {"encoder.embed_tokens.weight": stored["shared.weight"].clone()}, weights)
    loaded = load_bundle(copied)
    assert same(loaded.transformer().state_dict(), networks.dit().state_dict())
    assert torch.equal(loaded.text_encoder().encode(["a"]), networks.text_encoder().encode(["a"]))


def test_a_bundle_with_the_wan_vae(tmp_path: Path) -> None:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    codec = WanVAE(build_network({"base_dim": 4}), fps=16.0)
    path = save_bundle(
        tmp_path / "wan",
        transformer=networks.dit(),
        codec=codec,
        text_encoder=networks.text_encoder(),
        stream_config=networks.STREAM,
        height=32,
        width=48,
    )
    loaded = load_bundle(path).codec(torch.bfloat16)
    assert isinstance(loaded, WanVAE)
    assert {p.dtype for p in loaded.network.encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in loaded.network.decoder.parameters()} == {torch.bfloat16}
    whole = load_bundle(path).codec()
    assert isinstance(whole, WanVAE)
    assert same(whole.network.state_dict(), codec.network.state_dict())
    assert same(AutoencoderKLWan.from_pretrained(path / "vae").state_dict(), codec.network.state_dict())


def test_a_plain_diffusers_bundle_gets_the_papers_settings(copied: Path) -> None:
    edit(copied / "model_index.json", pyrf=None)
    loaded = load_bundle(copied)
    assert loaded.stream_config == StreamConfig()
    assert (loaded.fps, loaded.height, loaded.width) == (16.0, 480, 832)
    assert (loaded.model_config.text_len, loaded.model_config.rope_theta) == (512, 10000.0)


def test_nothing_is_overwritten(copied: Path) -> None:
    with pytest.raises(BundleError, match="exists; give a new directory"):
        networks.bundle(copied)
    assert load_bundle(copied).model_config == networks.MODEL


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save, "_write_text", fail)
    with pytest.raises(BundleError, match=r"cannot write .*small: No space left on device"):
        networks.bundle(tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot write"):
        networks.bundle(tmp_path / "file" / "small")


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot save a object"):
        save_bundle(
            tmp_path / "b",
            transformer=networks.dit(),
            codec=object(),  # type: ignore[arg-type]
            text_encoder=networks.text_encoder(),
            stream_config=networks.STREAM,
            height=32,
            width=48,
        )
