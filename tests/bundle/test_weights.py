"""Checkpoints: every published form is read, everything else is refused with the name of what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from pyrf.bundle.names import dit_from_diffusers, dit_to_diffusers
from pyrf.bundle.states import read_part
from pyrf.bundle.weights import CheckpointError, find_weights, load_weights, read_tensors
from pyrf.models.dit.model import WanModel
from tests.support import networks


def state() -> dict[str, Tensor]:
    return dict(networks.dit().state_dict())


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
    found = {dit_from_diffusers(name): tensor for name, tensor in read_part(path, "transformer").items()}
    assert set(found) == set(state())
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())


@pytest.mark.parametrize("form", ["bare", "prefixed", "wrapped", "diffusers"])
def test_students_in_safetensors(form: str, tmp_path: Path) -> None:
    save_file(FORMS[form](state()), tmp_path / "student.safetensors")
    read = read_part(tmp_path / "student.safetensors", "transformer")
    found = {dit_from_diffusers(name): tensor for name, tensor in read.items()}
    assert set(found) == set(state())


def test_a_pickle_of_the_old_format(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert set(read_tensors(tmp_path / "old.pth")) == set(state())


def test_two_names_for_one_parameter_are_refused(tmp_path: Path) -> None:
    torch.save({"model.a": torch.zeros(1), "a": torch.zeros(1)}, tmp_path / "s.pt")
    with pytest.raises(CheckpointError, match=r"s\.pt: a and another key both mean a"):
        read_part(tmp_path / "s.pt", "transformer")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, "bad.pt")
    with pytest.raises(CheckpointError, match=r"bad\.pt: holds objects of getattr, which need code"):
        read_part("bad.pt", "transformer")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dict of tensors, found list"),
        ({"a": 1}, "holds no tensors"),
        ({3: torch.zeros(1)}, "expected named tensors, found 3: Tensor"),
        ({}, "holds no tensors"),
    ],
)
def test_other_pickles_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=rf"odd\.pt: {message}"):
        read_part(tmp_path / "odd.pt", "transformer")


@settings(max_examples=30, derandomize=True)
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
        read_part(path, "transformer")
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
        model = WanModel(networks.MODEL)
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
        model = WanModel(networks.MODEL)
    load_weights(model, read_tensors(tmp_path / "w.safetensors"), "w")
    (tmp_path / "w.safetensors").write_bytes(bytes(10_000))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state().items())


def broken(change: Any) -> str:
    weights = state()
    change(weights)
    with torch.device("meta"):
        model = WanModel(networks.MODEL)
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


# Values


# float8_e4m3fn has no infinity.
FLOATS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}


@pytest.mark.parametrize(
    ("stored", "bad"),
    [(kind, bad) for kind in FLOATS for bad in ("nan", "inf", "-inf") if (kind[-2:], bad[-1]) != ("fn", "f")],
)
@pytest.mark.parametrize("place", [0, 5, -1])
def test_weights_that_are_not_finite_are_refused(stored: str, bad: str, place: int, tmp_path: Path) -> None:
    name = "blocks.1.ffn.0.weight"
    weights = {key: tensor.clone() for key, tensor in state().items()}
    weights[name].view(-1)[place] = float(bad)
    weights[name] = weights[name].to(FLOATS[stored])
    save_file(weights, tmp_path / "w.safetensors")
    with torch.device("meta"):
        model = WanModel(networks.MODEL)
    message = rf"w\.safetensors: {name} \[48, 24\] has 1 of 1152 values that are infinite or not a number"
    for dtype in (torch.float32, torch.bfloat16, None):
        with pytest.raises(CheckpointError, match=message):
            load_weights(
                model, read_tensors(tmp_path / "w.safetensors"), tmp_path / "w.safetensors", dtype=dtype
            )


def test_values_that_the_dtype_cannot_hold_are_refused() -> None:
    with torch.device("meta"):
        model = WanModel(networks.MODEL)
    weights = {key: tensor.clone() for key, tensor in state().items()}
    weights["head.head.bias"][0] = -1e6
    with pytest.raises(CheckpointError, match=r"head\.head\.bias .* up to 1e\+06, .* torch\.float16"):
        load_weights(model, dict(weights), "w", dtype=torch.float16)
    load_weights(model, dict(weights), "w", dtype=torch.bfloat16)


def test_float8_files_that_have_lost_their_scales_are_refused() -> None:
    """As converters write them: each matrix, or each of its rows, fills the range of the type."""
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        for axes in ((0, 1), (1,)):
            scaled = {
                key: (t / t.abs().amax(axes, keepdim=True) * torch.finfo(kind).max).to(kind)
                if t.ndim == 2
                else t
                for key, t in state().items()
            }
            with torch.device("meta"):
                model = WanModel(networks.MODEL)
            with pytest.raises(CheckpointError, match="has lost their scales"):
                load_weights(model, scaled, "w", dtype=torch.float32)


def test_float8_files_without_scales_are_read() -> None:
    """Values that were cast as they are: the scales are one."""
    with torch.device("meta"):
        model = WanModel(networks.MODEL)
    cast = {key: t.to(torch.float8_e4m3fn) for key, t in state().items()}
    load_weights(model, dict(cast), "w", dtype=torch.float32)
    assert all(torch.equal(t, cast[key].float()) for key, t in model.state_dict().items())


def test_a_type_that_holds_scales_holds_no_weights() -> None:
    with torch.device("meta"):
        model = WanModel(networks.MODEL)
    weights = dict(state())
    weights["head.head.bias"] = weights["head.head.bias"].to(torch.float8_e8m0fnu)
    with pytest.raises(CheckpointError, match=r"expected floating point, found torch\.float8_e8m0fnu"):
        load_weights(model, weights, "w", dtype=torch.float32)
