"""Checkpoints: every published form is read, everything else is refused with the name of what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from golden import tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from pyrf.checkpoint import CheckpointError, find_weights, load_weights, read_student, read_tensors
from pyrf.config import ModelConfig
from pyrf.keymaps import (
    dit_from_diffusers,
    dit_to_diffusers,
    t5_from_transformers,
    t5_to_transformers,
    vae_to_diffusers,
)
from pyrf.models.dit import WanModel
from pyrf.models.umt5 import UMT5Config, UMT5Encoder

SIZES = {
    "1.3B": ModelConfig(),
    "14B": ModelConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40),
}
PARAMETERS = {"1.3B": 1_418_996_800, "14B": 14_288_491_584}


def official_shapes(config: ModelConfig) -> dict[str, list[int]]:
    """Names and shapes of Wan's official checkpoints, written out."""
    dim, ffn = config.dim, config.ffn_dim
    shapes = {
        "patch_embedding.weight": [dim, 16, 1, 2, 2],
        "patch_embedding.bias": [dim],
        "text_embedding.0.weight": [dim, 4096],
        "text_embedding.0.bias": [dim],
        "text_embedding.2.weight": [dim, dim],
        "text_embedding.2.bias": [dim],
        "time_embedding.0.weight": [dim, 256],
        "time_embedding.0.bias": [dim],
        "time_embedding.2.weight": [dim, dim],
        "time_embedding.2.bias": [dim],
        "time_projection.1.weight": [6 * dim, dim],
        "time_projection.1.bias": [6 * dim],
        "head.modulation": [1, 2, dim],
        "head.head.weight": [64, dim],
        "head.head.bias": [64],
    }
    for i in range(config.num_layers):
        shapes |= {
            f"blocks.{i}.modulation": [1, 6, dim],
            f"blocks.{i}.norm3.weight": [dim],
            f"blocks.{i}.norm3.bias": [dim],
            f"blocks.{i}.ffn.0.weight": [ffn, dim],
            f"blocks.{i}.ffn.0.bias": [ffn],
            f"blocks.{i}.ffn.2.weight": [dim, ffn],
            f"blocks.{i}.ffn.2.bias": [dim],
        }
        for attention in ("self_attn", "cross_attn"):
            for layer in ("q", "k", "v", "o"):
                shapes[f"blocks.{i}.{attention}.{layer}.weight"] = [dim, dim]
                shapes[f"blocks.{i}.{attention}.{layer}.bias"] = [dim]
            shapes[f"blocks.{i}.{attention}.norm_q.weight"] = [dim]
            shapes[f"blocks.{i}.{attention}.norm_k.weight"] = [dim]
    return shapes


@pytest.mark.parametrize("size", SIZES)
def test_full_size_names_and_shapes(size: str) -> None:
    with torch.device("meta"):
        model = WanModel(SIZES[size])
    found = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == official_shapes(SIZES[size])
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == PARAMETERS[size]


def test_names_are_those_of_the_golden_weights() -> None:
    names = {name.replace("blocks.2.", "blocks.29.") for name in tensors("weights")}
    assert names <= set(official_shapes(SIZES["1.3B"]))
    assert {
        n for n in official_shapes(SIZES["1.3B"]) if n.startswith(("blocks.29.", "head", "t", "p"))
    } <= names


@pytest.mark.parametrize("size", SIZES)
def test_full_size_names_are_diffusers(size: str) -> None:
    from diffusers import WanTransformer3DModel

    config = SIZES[size]
    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            ffn_dim=config.ffn_dim,
            num_layers=config.num_layers,
            text_dim=4096,
        )
    shapes = {dit_from_diffusers(name): list(t.shape) for name, t in theirs.state_dict().items()}
    assert shapes == official_shapes(config)
    assert {dit_to_diffusers(name) for name in official_shapes(config)} == set(theirs.state_dict())


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    heads=st.integers(1, 3),
    head_dim=st.sampled_from([6, 8, 12, 16, 24]),
    ffn_dim=st.sampled_from([16, 40]),
    num_layers=st.integers(1, 2),
    text=st.tuples(st.integers(1, 6), st.sampled_from([8, 20])),
    freq_dim=st.sampled_from([16, 256]),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    timesteps=st.lists(st.floats(0, 1000, width=32), min_size=8, max_size=8),
    per_frame=st.booleans(),
)
def test_diffusers_weights_give_diffusers_output(
    heads: int,
    head_dim: int,
    ffn_dim: int,
    num_layers: int,
    text: tuple[int, int],
    freq_dim: int,
    shape: tuple[int, int, int, int],
    timesteps: list[float],
    per_frame: bool,
) -> None:
    from diffusers import WanTransformer3DModel

    (text_len, text_dim), (batch, frames, rows, columns) = text, shape
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=4,
        out_channels=4,
        text_dim=text_dim,
        freq_dim=freq_dim,
        ffn_dim=ffn_dim,
        num_layers=num_layers,
    )
    small.randomise(theirs)
    config = ModelConfig(
        dim=heads * head_dim,
        ffn_dim=ffn_dim,
        num_heads=heads,
        num_layers=num_layers,
        text_len=text_len,
        text_dim=text_dim,
        freq_dim=freq_dim,
        in_channels=4,
        out_channels=4,
    )
    with torch.device("meta"):
        ours = WanModel(config)
    load_weights(ours, {dit_from_diffusers(k): v for k, v in theirs.state_dict().items()}, "diffusers")
    latents = torch.randn(batch, frames, 4, 2 * rows, 2 * columns)
    prompt_embeds = torch.randn(batch, text_len, text_dim)
    times = torch.tensor(timesteps)[: batch * frames].view(batch, frames)
    if not per_frame:
        times = times[:, 0]
    their_times = times.repeat_interleave(rows * columns, dim=1) if per_frame else times
    with torch.no_grad():
        expected = theirs(latents.transpose(1, 2), their_times, prompt_embeds).sample.transpose(1, 2)
        found = ours(latents, times, ours.encode_prompt(prompt_embeds))
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)
    back = {dit_to_diffusers(name): tensor for name, tensor in ours.state_dict().items()}
    assert all(torch.equal(tensor, back.pop(name)) for name, tensor in theirs.state_dict().items())
    assert not back


def test_official_names_pass_through_the_inverse_maps() -> None:
    assert all(dit_from_diffusers(name) == name for name in official_shapes(SIZES["1.3B"]))
    assert all(t5_from_transformers(name) == name for name in text_shapes(UMT5Config()))


def text_shapes(config: UMT5Config) -> dict[str, list[int]]:
    """Names and shapes of Wan's UMT5 checkpoint, written out."""
    dim, inner, ffn = config.dim, config.attention_dim, config.ffn_dim
    shapes = {"token_embedding.weight": [config.vocab_size, dim], "norm.weight": [dim]}
    for i in range(config.num_layers):
        shapes |= {
            f"blocks.{i}.norm1.weight": [dim],
            f"blocks.{i}.attn.q.weight": [inner, dim],
            f"blocks.{i}.attn.k.weight": [inner, dim],
            f"blocks.{i}.attn.v.weight": [inner, dim],
            f"blocks.{i}.attn.o.weight": [dim, inner],
            f"blocks.{i}.norm2.weight": [dim],
            f"blocks.{i}.ffn.gate.0.weight": [ffn, dim],
            f"blocks.{i}.ffn.fc1.weight": [ffn, dim],
            f"blocks.{i}.ffn.fc2.weight": [dim, ffn],
            f"blocks.{i}.pos_embedding.embedding.weight": [32, config.num_heads],
        }
    return shapes


def test_text_encoder_names_and_shapes() -> None:
    from transformers import UMT5Config as TheirConfig
    from transformers import UMT5EncoderModel

    sizes = {
        "vocab_size": 256384,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
    }
    with torch.device("meta"):
        ours, theirs = UMT5Encoder(UMT5Config()), UMT5EncoderModel(TheirConfig(**sizes))
    found = {name: list(tensor.shape) for name, tensor in ours.state_dict().items()}
    assert found == text_shapes(UMT5Config())
    renamed = {t5_to_transformers(name): shape for name, shape in found.items()}
    expected = {name: list(tensor.shape) for name, tensor in theirs.state_dict().items()}
    expected.pop("encoder.embed_tokens.weight", None)
    assert renamed == expected


@pytest.mark.parametrize("num_res_blocks", [1, 2, 3])
def test_vae_names_are_diffusers(num_res_blocks: int) -> None:
    """The map reaches every name of AutoencoderKLWan, whatever its depth."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        theirs = set(AutoencoderKLWan(base_dim=4, num_res_blocks=num_res_blocks).state_dict())
    levels, depth = 4, num_res_blocks + 2
    residual = [f"{layer}.{leaf}" for layer in ("residual.2", "residual.6") for leaf in ("weight", "bias")]
    residual += ["residual.0.gamma", "residual.3.gamma", "shortcut.weight", "shortcut.bias"]
    resample = tuple(
        f"{layer}.{leaf}" for layer in ("resample.1", "time_conv") for leaf in ("weight", "bias")
    )
    attention = ("norm.gamma", "to_qkv.weight", "to_qkv.bias", "proj.weight", "proj.bias")
    official = [f"{layer}.{leaf}" for layer in ("conv1", "conv2") for leaf in ("weight", "bias")]
    for half, stack, count in (
        ("encoder", "downsamples", levels * (num_res_blocks + 1) - 1),
        ("decoder", "upsamples", levels * depth - 1),
    ):
        official += [f"{half}.{name}" for name in ("conv1.weight", "conv1.bias", "head.0.gamma")]
        official += [f"{half}.{name}" for name in ("head.2.weight", "head.2.bias")]
        official += [f"{half}.middle.{i}.{name}" for i in (0, 2) for name in residual]
        official += [f"{half}.middle.1.{name}" for name in attention]
        official += [f"{half}.{stack}.{i}.{name}" for i in range(count) for name in (*residual, *resample)]
    mapped = {vae_to_diffusers(name, num_res_blocks=num_res_blocks) for name in official}
    assert theirs <= mapped


def test_unknown_names_stay_for_the_check_to_report() -> None:
    for rename in (
        dit_to_diffusers,
        dit_from_diffusers,
        t5_to_transformers,
        t5_from_transformers,
        vae_to_diffusers,
    ):
        assert rename("img_emb.proj.0.weight") == "img_emb.proj.0.weight"
        assert rename("blocks.0.strange.weight").endswith(".0.strange.weight")


# Student files


def state() -> dict[str, Tensor]:
    return dict(small.dit().state_dict())


def wrapped(names: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as FSDP, activation checkpointing and torch.compile leave them."""
    return {
        "model._fsdp_wrapped_module."
        + name.replace(
            "blocks.0.", "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module._orig_mod."
        ): tensor
        for name, tensor in names.items()
    }


def prefixed(names: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in names.items()}


FORMS: dict[str, Any] = {
    "bare": lambda s: s,
    "prefixed": prefixed,
    "wrapped": wrapped,
    "diffusers": lambda s: {dit_to_diffusers(name): tensor for name, tensor in s.items()},
    "generator": lambda s: {"generator": prefixed(s), "critic": {"x": torch.zeros(1)}, "step": 7},
    "generator_ema": lambda s: {"generator": {"model.x": torch.zeros(1)}, "generator_ema": wrapped(s)},
    "model": lambda s: {"model": s, "optimizer": None},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_student_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    torch.save(FORMS[form](state()), path)
    found = {dit_from_diffusers(name): tensor for name, tensor in read_student(path).items()}
    assert set(found) == set(state())
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())


@pytest.mark.parametrize("form", ["bare", "prefixed", "wrapped", "diffusers"])
def test_students_in_safetensors(form: str, tmp_path: Path) -> None:
    save_file(FORMS[form](state()), tmp_path / "student.safetensors")
    found = {dit_from_diffusers(k): v for k, v in read_student(tmp_path / "student.safetensors").items()}
    assert set(found) == set(state())


def test_a_pickle_of_the_old_format(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert set(read_tensors(tmp_path / "old.pth")) == set(state())


def test_two_names_for_one_parameter_are_refused(tmp_path: Path) -> None:
    torch.save({"model.a": torch.zeros(1), "a": torch.zeros(1)}, tmp_path / "s.pt")
    with pytest.raises(CheckpointError, match=r"s\.pt: a and another key both mean a"):
        read_student(tmp_path / "s.pt")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, "bad.pt")
    with pytest.raises(CheckpointError, match=r"bad\.pt: damaged, or holds objects other than tensors"):
        read_student("bad.pt")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dict of tensors, found list"),
        ({"a": 1}, "expected named tensors, found 'a': int"),
        ({3: torch.zeros(1)}, "expected named tensors, found 3: Tensor"),
        ({}, "holds no tensors"),
    ],
)
def test_other_pickles_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=rf"odd\.pt: {message}"):
        read_student(tmp_path / "odd.pt")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(kind=st.sampled_from(["a.safetensors", "a.pt", "old.pt"]), part=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, part: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / kind
    weights = {"a": torch.randn(64, 64), "b": torch.randn(7)}
    if kind == "a.safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "a.pt")
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        read_student(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no.safetensors", "no.pt", "no.safetensors.index.json"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{name}: no such file"):
        read_tensors(tmp_path / name)


# Shards


def write_shards(folder: Path) -> dict[str, Tensor]:
    weights = {name: torch.randn(3) for name in ("a", "b", "c")}
    save_file({"a": weights["a"]}, folder / "m-1.safetensors")
    save_file({"b": weights["b"], "c": weights["c"]}, folder / "m-2.safetensors")
    shard_of = {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors"}
    (folder / "m.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    return weights


def test_shards_are_joined(tmp_path: Path) -> None:
    weights = write_shards(tmp_path)
    found = read_tensors(find_weights(tmp_path, "m"))
    assert set(found) == set(weights)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "m-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"m-2\.safetensors: no such file"):
        read_tensors(find_weights(tmp_path, "m"))


def test_a_shard_without_its_tensor_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    save_file({"b": torch.zeros(3)}, tmp_path / "m-2.safetensors")
    with pytest.raises(CheckpointError, match=r"m-2\.safetensors: c is missing"):
        read_tensors(find_weights(tmp_path, "m"))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not an index of shards"),
        ("[]", "not an index of shards"),
        ('{"weight_map": {"a": "../m-1.safetensors"}}', "is not the name of a file beside it"),
        ('{"weight_map": {"a": 5}}', "is not the name of a file beside it"),
    ],
)
def test_a_damaged_index_is_refused(index: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(index)
    with pytest.raises(CheckpointError, match=message):
        read_tensors(path)


# Putting weights into a network


def test_weights_are_copied_cast_and_let_go() -> None:
    with torch.device("meta"):
        model = WanModel(small.MODEL)
    source = state()
    originals = dict(source)
    load_weights(model, source, "here", dtype=torch.bfloat16)
    assert source == {}
    loaded = model.state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.bfloat16}
    assert all(torch.equal(loaded[name], tensor.bfloat16()) for name, tensor in originals.items())


def test_a_loaded_network_does_not_hold_the_file(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    with torch.device("meta"):
        model = WanModel(small.MODEL)
    load_weights(model, read_tensors(tmp_path / "w.safetensors"), "w")
    (tmp_path / "w.safetensors").write_bytes(bytes(10_000))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state().items())


def broken(change: Any) -> str:
    weights = state()
    change(weights)
    with torch.device("meta"):
        model = WanModel(small.MODEL)
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, weights, "dir/student.pt")
    return str(caught.value)


def test_a_wrong_shape_names_key_and_both_shapes() -> None:
    def change(weights: dict[str, Tensor]) -> None:
        weights["blocks.1.ffn.0.weight"] = torch.zeros(48, 23)
        weights["blocks.1.ffn.0.bias"] = torch.zeros(47)

    message = broken(change)
    assert message.startswith(
        "dir/student.pt: blocks.1.ffn.0.weight: expected shape [48, 24], found [48, 23]"
    )
    assert message.endswith("(and 1 more)")


def test_missing_and_unexpected_names_are_told() -> None:
    def change(weights: dict[str, Tensor]) -> None:
        weights["blocks.0.extra"] = weights.pop("blocks.0.modulation")

    assert broken(change) == (
        "dir/student.pt: blocks.0.modulation [1, 6, 24] is missing; "
        "blocks.0.extra [1, 6, 24] is not part of the network"
    )


def test_integers_are_refused() -> None:
    message = broken(lambda w: w.update({"head.head.bias": torch.zeros(64, dtype=torch.int8)}))
    assert message == "dir/student.pt: head.head.bias: expected floating point, found torch.int8"


def test_the_14b_refuses_the_1_3b() -> None:
    with torch.device("meta"):
        weights = dict(WanModel(SIZES["1.3B"]).state_dict())
        model = WanModel(SIZES["14B"])
    with pytest.raises(
        CheckpointError, match=r"blocks\.30\.modulation.*is missing \(and 269 more\).*expected shape"
    ):
        load_weights(model, weights, "rewardforcing.pt")
