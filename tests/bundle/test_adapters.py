"""Files of adapters: every public form means the same, and what is none is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pyrf.bundle.adapter_file import AdapterFile, parse_adapter
from pyrf.bundle.adapters import read_adapter, read_adapters
from pyrf.models.dit.adapter import Adapter, Added, LowRank
from tests.support import adapters, networks

Q = "diffusion_model.blocks.0.self_attn.q"
DIM, RANK = networks.MODEL.dim, adapters.RANK


def read(path: Path) -> Adapter:
    return read_adapter(path, "style", 1.0, networks.MODEL)


def saved(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()},
        tmp_path / "style.safetensors",
        metadata,
    )
    return tmp_path / "style.safetensors"


def pair(rank: int = RANK, inner: int = DIM, outer: int = DIM) -> dict[str, Tensor]:
    return {f"{Q}.lora_A.weight": torch.ones(rank, inner), f"{Q}.lora_B.weight": torch.ones(outer, rank)}


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("alpha", [None, 1.5])
@pytest.mark.parametrize("spelling", adapters.SPELLINGS)
def test_every_spelling_means_the_same(tmp_path: Path, spelling: str, alpha: float | None) -> None:
    parts = adapters.factors((*adapters.LINEARS, *adapters.REST))
    found = read(saved(tmp_path, adapters.keys(spelling, parts, alpha)))
    assert set(found.changes) == {f"{module}.weight" for module in parts}
    for module, (down, up) in parts.items():
        (change,) = found.changes[f"{module}.weight"]
        assert isinstance(change, LowRank)
        assert change.down.equal(down)
        assert change.up.equal(up)
        assert change.factor == (1.0 if alpha is None else alpha / RANK)


def test_the_oldest_form_of_diffusers(tmp_path: Path) -> None:
    """Attention processors held the adapter, and that of the output was named by its list."""
    tensors = {
        f"transformer.blocks.1.attn1.processor.to_out_lora.{side}.weight": tensor
        for side, tensor in (("down", torch.ones(RANK, DIM)), ("up", torch.ones(DIM, RANK)))
    }
    assert set(read(saved(tmp_path, tensors)).changes) == {"blocks.1.self_attn.o.weight"}


def test_files_of_torch_and_longlives_entry(tmp_path: Path) -> None:
    parts = adapters.factors()
    whole = {
        "generator_lora": adapters.keys("with an adapter's name", parts),
        "critic_lora": adapters.keys("with an adapter's name", adapters.factors(seed=1)),
        "step": 700,
    }
    torch.save(whole, tmp_path / "longlive.pt")
    found = read(tmp_path / "longlive.pt")
    assert set(found.changes) == {f"{module}.weight" for module in parts}
    (change,) = found.changes["blocks.0.self_attn.q.weight"]
    assert isinstance(change, LowRank)
    assert change.down.equal(parts["blocks.0.self_attn.q"][0])


def test_an_alpha_that_is_a_plain_number(tmp_path: Path) -> None:
    torch.save({**pair(), f"{Q}.alpha": 6.0}, tmp_path / "style.pt")
    (change,) = read(tmp_path / "style.pt").changes["blocks.0.self_attn.q.weight"]
    assert change.factor == 6.0 / RANK


def test_whole_changes(tmp_path: Path) -> None:
    expected = {
        "blocks.0.self_attn.q.weight": ("blocks.0.self_attn.q.diff", (DIM, DIM)),
        "blocks.0.self_attn.q.bias": ("blocks.0.self_attn.q.diff_b", (DIM,)),
        "blocks.1.norm3.weight": ("blocks.1.norm3.diff", (DIM,)),
        "blocks.1.norm3.bias": ("blocks.1.norm3.diff_b", (DIM,)),
        "blocks.0.cross_attn.norm_k.weight": ("blocks.0.cross_attn.norm_k.diff", (DIM,)),
        "blocks.0.modulation": ("blocks.0.diff_m", (1, 6, DIM)),
        "head.modulation": ("head.diff_m", (1, 2, DIM)),
        "head.head.bias": ("head.head.diff_b", (64,)),
        "patch_embedding.weight": ("patch_embedding.diff", (DIM, 16, 1, 2, 2)),
        "time_embedding.0.bias": ("time_embedding.0.diff_b", (DIM,)),
    }
    tensors = {f"diffusion_model.{key}": torch.full(shape, 0.5) for key, shape in expected.values()}
    found = read(saved(tmp_path, tensors))
    assert set(found.changes) == set(expected)
    for changes in found.changes.values():
        (change,) = changes
        assert isinstance(change, Added)
        assert change.factor == 1.0


def test_pefts_folder_says_alpha(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "lora_alpha": 12, "r": RANK, "alpha_pattern": {"ffn.net.2": 24}}
    parts = adapters.factors(("blocks.0.self_attn.q", "blocks.0.ffn.2"))
    tensors = {
        key.replace("transformer.", "base_model.model."): tensor
        for key, tensor in adapters.keys("diffusers", parts).items()
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    factors = {name: change.factor for name, (change,) in read(tmp_path).changes.items()}
    assert factors == {"blocks.0.self_attn.q.weight": 12 / RANK, "blocks.0.ffn.2.weight": 24 / RANK}


def test_metadata_of_diffusers_says_alpha(tmp_path: Path) -> None:
    metadata = {
        "lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 12, "transformer.use_rslora": True})
    }
    (change,) = read(saved(tmp_path, pair(), metadata)).changes["blocks.0.self_attn.q.weight"]
    assert change.factor == pytest.approx(12 / RANK**0.5)


DAMAGED: dict[str, tuple[dict[str, Tensor], str]] = {
    "another layer": (
        {"diffusion_model.blocks.2.self_attn.q.lora_A.weight": torch.ones(RANK, DIM)},
        "fits no layer",
    ),
    "an image's layer": (
        {"diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight": torch.ones(RANK, DIM)},
        "image-to-video",
    ),
    "the text encoder's": (
        {"lora_te_text_model_encoder_layers_0.lora_down.weight": torch.ones(RANK, DIM)},
        "text enc",
    ),
    "no adapter": ({"blocks.0.self_attn.q.weight": torch.ones(DIM, DIM)}, "is no name of LoRA"),
    "ranks differ": (
        {f"{Q}.lora_A.weight": torch.ones(2, DIM), f"{Q}.lora_B.weight": torch.ones(DIM, 3)},
        "its rank is 3, but that of",
    ),
    "a rank without end": (pair(DIM + 1), f"its rank must lie in 1..{DIM}"),
    "another width": (pair(inner=DIM + 2, outer=DIM), f"expected [{RANK}, {DIM}]"),
    "another height": (pair(outer=DIM + 2), f"expected [{DIM}, {RANK}]"),
    "no B": ({f"{Q}.lora_A.weight": torch.ones(RANK, DIM)}, "lora_B or lora_up, is missing"),
    "no A": ({f"{Q}.lora_up.weight": torch.ones(DIM, RANK)}, "lora_A or lora_down, is missing"),
    "alpha alone": ({f"{Q}.alpha": torch.tensor(1.0)}, "low-rank parts of blocks.0.self_attn.q are missing"),
    "alpha of two": ({**pair(), f"{Q}.alpha": torch.ones(2)}, "expected one finite number"),
    "alpha not finite": ({**pair(), f"{Q}.alpha": torch.tensor(torch.inf)}, "expected one finite number"),
    "twice": ({**pair(), f"{Q}.lora_down.weight": torch.ones(RANK, DIM)}, "both are the down of"),
    "two networks": (
        {**pair(), "other.blocks.0.self_attn.k.lora_A.weight": torch.ones(RANK, DIM)},
        "adapters of two networks",
    ),
    "DoRA": ({**pair(), f"{Q}.dora_scale": torch.ones(DIM)}, "DoRA"),
    "DoRA of peft": ({**pair(), f"{Q}.lora_magnitude_vector.weight": torch.ones(DIM)}, "DoRA"),
    "LoHa": ({f"{Q}.hada_w1_a": torch.ones(DIM, 2)}, "LoHa"),
    "LoKr": ({f"{Q}.lokr_w1": torch.ones(2, 2)}, "LoKr"),
    "not finite": (
        {**pair(), f"{Q}.lora_B.weight": torch.full((DIM, RANK), torch.nan)},
        "infinite or not a number",
    ),
    "whole numbers": (
        {**pair(), f"{Q}.diff_b": torch.ones(DIM, dtype=torch.int64)},
        "expected floating point",
    ),
    "a bias that is none": (
        {"diffusion_model.blocks.0.self_attn.norm_q.diff_b": torch.ones(DIM)},
        "this model has no blocks.0.self_attn.norm_q.bias",
    ),
    "a bias of A": ({**pair(), f"{Q}.lora_A.bias": torch.ones(RANK)}, "has no bias"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_refusals_name_the_key(tmp_path: Path, what: str) -> None:
    tensors, problem = DAMAGED[what]
    message = refusal(saved(tmp_path, tensors))
    assert problem in message
    assert any(key in message for key in tensors)


def test_a_tensor_larger_than_its_file_is_refused_by_shape(tmp_path: Path) -> None:
    """A file of torch may say that one value stands for terabytes."""
    tensors = {**pair(), f"{Q}.lora_B.weight": torch.ones(1).expand(2**40, 2**20)}
    torch.save(tensors, tmp_path / "style.pt")
    assert "its rank is" in refusal(tmp_path / "style.pt")
    torch.save({f"{Q}.diff": torch.ones(1).expand(2**40, 2**20)}, tmp_path / "style.pt")
    assert "expected [24, 24]" in refusal(tmp_path / "style.pt")


def test_files_that_run_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Evil()}, tmp_path / "style.pt")
    assert "need code to load" in refusal(tmp_path / "style.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"lora_alpha": "much"}, "must be numbers"),
        ({"lora_alpha": 1e999}, "must be finite"),
    ],
)
def test_pefts_configuration_is_checked(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    save_file(pair(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=problem):
        read(tmp_path)


def test_two_entries_that_fit_are_refused(tmp_path: Path) -> None:
    torch.save({"a": pair(), "b": pair()}, tmp_path / "style.pt")
    assert "'a' and 'b' both hold tensors" in refusal(tmp_path / "style.pt")
    torch.save({"critic_lora": pair()}, tmp_path / "style.pt")
    assert "no adapter of a generator" in refusal(tmp_path / "style.pt")


def test_names_and_strengths(tmp_path: Path) -> None:
    file = saved(tmp_path, pair())
    first, second = read_adapters([file, (file, -0.5, "other")], networks.MODEL)
    assert (first.name, first.strength) == ("style", 1.0)
    assert (second.name, second.strength) == ("other", -0.5)
    for specs, problem in (
        ([file, file], "two adapters are named 'style'"),
        ([(file, 11.0)], "must be a number of -10..10, got 11.0"),
        ([(file, float("nan"))], "got nan"),
        ([(file, True)], "got True"),
        ([(file, 1.0, "")], "1..64 characters"),
        ([(file, 1.0, "a\nb")], "1..64 characters"),
        ([tmp_path / "absent.safetensors"], "no adapter "),
        (str(file), "must be a list"),
    ):
        with pytest.raises(ValueError, match=problem):
            read_adapters(specs, networks.MODEL)


def test_what_the_command_line_takes(tmp_path: Path) -> None:
    assert parse_adapter("a/b.safetensors") == AdapterFile("a/b.safetensors")
    assert parse_adapter("b.safetensors:.8") == AdapterFile("b.safetensors", 0.8)
    assert parse_adapter("b.safetensors:-1") == AdapterFile("b.safetensors", -1.0)
    assert parse_adapter("ink=b.safetensors:0.25") == AdapterFile("b.safetensors", 0.25, "ink")
    odd = tmp_path / "x=y:2"
    odd.touch()
    assert parse_adapter(str(odd)) == AdapterFile(str(odd))
    for text in ("", ":2", "ink=", "ink=:1"):
        with pytest.raises(ValueError, match="FILE"):
            parse_adapter(text)
