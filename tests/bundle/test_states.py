"""Where in a file a part's weights are: entries of dicts, prefixes of names, and what stands beside them."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrf.bundle import load_bundle
from pyrf.bundle.names import dit_to_diffusers
from pyrf.bundle.states import WRAPPERS, read_part
from pyrf.bundle.weights import CheckpointError
from tests.support import networks
from tests.support.bundle_checks import refused, same

STATE = dict(networks.dit(seed=1).state_dict())
OTHER = dict(networks.dit(seed=2).state_dict())
PREFIXES = (
    "model.diffusion_model.",
    "diffusion_model.",
    "module.",
    "model.",
    "transformer.",
    "_fsdp_wrapped_module.",
    "_orig_mod.",
    "generator.",
    "generator_ema.",
    "net.",
    "module.model.",
    "_fsdp_wrapped_module.model.",
    "state_dict.generator.model._orig_mod.",
)
ENTRIES = (
    "state_dict",
    "model_state_dict",
    "module",
    "ema",
    "generator",
    "generator_ema",
    "model",
    "params",
    "student",
)


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("diffusers", [False, True])
def test_prefixes(saved: Path, tmp_path: Path, prefix: str, diffusers: bool) -> None:
    state = {dit_to_diffusers(name): t for name, t in STATE.items()} if diffusers else STATE
    save_file(under(prefix, state), tmp_path / "s.safetensors")
    torch.save(under(prefix, state), tmp_path / "s.pt")
    for name in ("s.safetensors", "s.pt"):
        loaded = load_bundle(saved, student=tmp_path / name)
        assert same(loaded.transformer().state_dict(), STATE)


@settings(max_examples=25, derandomize=True)
@given(
    prefix=st.lists(st.sampled_from(["model", "module", "net", *(w[:-1] for w in WRAPPERS)]), max_size=4),
    inner=st.sampled_from(["", *WRAPPERS]),
    entries=st.lists(st.sampled_from(ENTRIES), max_size=3),
)
def test_prefixes_and_entries_of_any_kind(
    tmp_path_factory: pytest.TempPathFactory, prefix: list[str], inner: str, entries: list[str]
) -> None:
    before = "".join(f"{part}." for part in prefix)
    content: Any = {
        before + name.replace("blocks.0.", f"blocks.0.{inner}"): tensor for name, tensor in STATE.items()
    }
    for entry in entries:
        content = {entry: content, "step": 7, "args": {"lr": 1e-3}, "name": "run"}
    path = tmp_path_factory.getbasetemp() / "s.pt"
    torch.save(content, path)
    assert same(read_part(path, "transformer"), STATE)


@pytest.mark.parametrize("entry", ENTRIES)
def test_entries_of_a_training(saved: Path, tmp_path: Path, entry: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save({entry: STATE, "optimizer": optimizer, "epoch": 3, "best": None}, tmp_path / "s.pt")
    loaded = load_bundle(saved, student=tmp_path / "s.pt")
    assert same(loaded.transformer().state_dict(), STATE)


@pytest.mark.parametrize("averaged", ["generator_ema", "ema", "model_ema"])
@pytest.mark.parametrize("raw", ["generator", "model", "state_dict"])
def test_the_average_is_taken_and_told(
    tmp_path: Path, averaged: str, raw: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({raw: OTHER, averaged: STATE}, tmp_path / "s.pt")
    with caplog.at_level(logging.WARNING):
        assert same(read_part(tmp_path / "s.pt", "transformer"), STATE)
    assert caplog.messages == [f"{tmp_path / 's.pt'}: {averaged!r} is used; it holds {raw!r}, too"]


@pytest.mark.parametrize(
    "names", [("generator", "model"), ("state_dict", "module"), ("ema", "generator_ema")]
)
def test_two_that_fit_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    torch.save(dict.fromkeys(names, STATE), tmp_path / "s.pt")
    with pytest.raises(
        CheckpointError, match=f"'{names[0]}' and '{names[1]}' both fit; save the one"
    ) as caught:
        read_part(tmp_path / "s.pt", "transformer")
    assert "\n" not in str(caught.value)


def test_two_sets_of_names_in_one_file_are_refused(tmp_path: Path) -> None:
    save_file({**STATE, **under("model.", OTHER)}, tmp_path / "s.safetensors")
    with pytest.raises(CheckpointError, match="'bare names' and 'model' both fit"):
        read_part(tmp_path / "s.safetensors", "transformer")


def test_both_spellings_of_one_name_are_refused(saved: Path, tmp_path: Path) -> None:
    theirs = dit_to_diffusers("blocks.0.self_attn.q.weight")
    save_file({**STATE, theirs: torch.zeros(24, 24)}, tmp_path / "s.safetensors")
    message = refused(saved, student=tmp_path / "s.safetensors")
    assert message.endswith("another key both mean blocks.0.self_attn.q.weight")


def test_names_that_wrappers_tell_apart_are_refused(tmp_path: Path) -> None:
    save_file({**STATE, "blocks.0._orig_mod.modulation": torch.zeros(1, 6, 24)}, tmp_path / "s.safetensors")
    with pytest.raises(CheckpointError, match=r"another key both mean blocks\.0\.modulation"):
        read_part(tmp_path / "s.safetensors", "transformer")


@pytest.mark.parametrize("role", ["critic", "fake_score", "real_score", "teacher", "discriminator"])
def test_a_network_beside_the_student_is_not_taken_for_it(tmp_path: Path, role: str) -> None:
    torch.save({role: OTHER, "generator": STATE}, tmp_path / "both.pt")
    assert same(read_part(tmp_path / "both.pt", "transformer"), STATE)
    torch.save({role: OTHER}, tmp_path / "alone.pt")
    with pytest.raises(CheckpointError, match=f"holds {role!r} and no generator"):
        read_part(tmp_path / "alone.pt", "transformer")
    save_file(under(f"{role}.", OTHER), tmp_path / "flat.safetensors")
    with pytest.raises(CheckpointError, match=f"holds {role!r} and no generator"):
        read_part(tmp_path / "flat.safetensors", "transformer")


def test_a_file_of_a_whole_model_gives_each_part(saved: Path, tmp_path: Path) -> None:
    """As ComfyUI keeps checkpoints."""
    vae = load_file(saved / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(saved / "text_encoder" / "model.safetensors")
    path = tmp_path / "all.safetensors"
    save_file(
        under("model.diffusion_model.", STATE)
        | under("first_stage_model.", vae)
        | under("text_encoders.umt5xxl.transformer.", text),
        path,
    )
    assert same(read_part(path, "transformer"), STATE)
    assert same(read_part(path, "codec"), vae)
    assert same(read_part(path, "text encoder"), text)


def test_numbers_beside_the_weights_are_left(tmp_path: Path) -> None:
    """torch's AveragedModel counts in `n_averaged`, and some trainings in `step`."""
    save_file({**under("module.", STATE), "n_averaged": torch.tensor(9)}, tmp_path / "a.safetensors")
    save_file({**STATE, "step": torch.tensor(9)}, tmp_path / "b.safetensors")
    for name in ("a", "b"):
        assert same(read_part(tmp_path / f"{name}.safetensors", "transformer"), STATE)


def test_dtensors(tmp_path: Path) -> None:
    """As FSDP2 saves them; a process's part of a tensor is refused."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = {name: distribute_tensor(tensor.clone(), mesh, [Shard(0)]) for name, tensor in STATE.items()}
        torch.save({"generator": whole}, tmp_path / "whole.pt")
        name = "blocks.0.ffn.0.weight"
        part = DTensor.from_local(STATE[name][:24], mesh, [Shard(0)], shape=STATE[name].shape, stride=(24, 1))
        torch.save({"generator": {**whole, name: part}}, tmp_path / "part.pt")
    finally:
        dist.destroy_process_group()
    found = read_part(tmp_path / "whole.pt", "transformer")
    assert same(found, STATE)
    assert {type(tensor) for tensor in found.values()} == {Tensor}
    with pytest.raises(
        CheckpointError, match=rf"{name} is one process's part of a tensor, \[24, 24\] of \[48"
    ):
        read_part(tmp_path / "part.pt", "transformer")


class Custom:
    """Needs code to load."""


def test_the_class_that_a_pickle_needs_is_named(tmp_path: Path) -> None:
    torch.save({"model": STATE, "config": Custom()}, tmp_path / "s.pt")
    with pytest.raises(
        CheckpointError, match=r"holds objects of tests\.bundle\.test_states\.Custom, which need"
    ):
        read_part(tmp_path / "s.pt", "transformer")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": Custom()}))
    with pytest.raises(CheckpointError, match=r"plain\.pt"):
        read_part(tmp_path / "plain.pt", "transformer")
