"""Where a bundle and its student come from: the package, a directory, a file, the hub."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.errors
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # it is documented

from pyrf.bundle import Bundle, BundleError, load_bundle
from pyrf.config import ModelConfig
from tests.support import networks
from tests.support.bundle_checks import refused, same


def test_tiny_is_in_the_package(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = copied.parent / "package"
    shutil.copytree(copied, package / "assets" / "tiny")
    monkeypatch.setattr("importlib.resources.files", lambda name: package if name == "pyrf" else None)
    assert load_bundle("tiny").path == package / "assets" / "tiny"
    shutil.rmtree(package / "assets")
    assert "the bundled model is missing" in refused("tiny")


@pytest.mark.parametrize("name", ["nothing-here", "./a/b", "a/b/c", "", "a b/c", Path("a/b")])
def test_a_name_that_means_nothing(name: str | Path) -> None:
    assert "give 'tiny', 'valley', a directory, or a hub id 'owner/name'" in refused(name)


def test_a_student_takes_the_transformers_place(copied: Path, tmp_path: Path) -> None:
    student = networks.dit(seed=1).state_dict()
    torch.save({"generator_ema": {f"model.{k}": v for k, v in student.items()}}, tmp_path / "rf.pt")
    (copied / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    loaded = load_bundle(copied, student=str(tmp_path / "rf.pt"))
    assert same(loaded.transformer().state_dict(), student)


def test_a_student_of_another_network_is_refused(saved: Path, tmp_path: Path) -> None:
    other = networks.dit(ModelConfig(**{**vars(networks.MODEL), "ffn_dim": 40})).state_dict()
    torch.save(dict(other), tmp_path / "rf.pt")
    message = refused(saved, Bundle.transformer, student=tmp_path / "rf.pt")
    assert message == (
        f"{tmp_path / 'rf.pt'}: blocks.0.ffn.0.weight: expected shape [48, 24], found [40, 24] (and 5 more)"
    )


@pytest.mark.parametrize("name", ["nowhere.pt", "a/b/c.txt", "./a/b", Path("a/b/c.pt"), "a//b"])
def test_a_student_that_is_nowhere(saved: Path, name: str | Path) -> None:
    message = refused(saved, student=name)
    assert message.startswith(f"no student {str(name)!r}: ")
    assert message.endswith("give a file, a folder of diffusers, or 'owner/name/file.pt' on the hub")


class Hub:
    """Stands in for the hub's download functions, and records what is asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, snapshot: Path) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.snapshot = snapshot
        self.error: Exception | None = None
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.hf_hub_download)

    def snapshot_download(self, repo: str, **options: Any) -> str:
        self.calls.append((repo, options))
        if self.error:
            raise self.error
        return str(self.snapshot)

    def hf_hub_download(self, repo: str, file: str) -> str:
        self.calls.append((repo, {"file": file}))
        if self.error:
            raise self.error
        return str(self.snapshot / file)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, copied: Path) -> Hub:
    return Hub(monkeypatch, copied)


USED = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors.index.json",
    "text_encoder/model-00001-of-00005.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model-00001-of-00006.safetensors",
    "Wan2.1_VAE.pth",
    "models_t5_umt5-xxl-enc-bf16.pth",
    "google/umt5-xxl/tokenizer.json",
)
UNUSED = ("README.md", "assets/demo.mp4", "examples/i2v_input.JPG", "xlm-roberta-large/model.safetensors")


def wanted(hub: Hub) -> set[str]:
    """Which files of such a repository the patterns of the last snapshot call let through."""
    patterns = hub.calls[-1][1]["allow_patterns"]
    return set(filter_repo_objects([*USED, *UNUSED], allow_patterns=patterns))


def test_a_hub_id_is_downloaded(hub: Hub, copied: Path) -> None:
    loaded = load_bundle("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", revision="v1")
    assert loaded.path == copied
    repo, options = hub.calls[0]
    assert (repo, options["revision"]) == ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "v1")
    assert wanted(hub) == set(USED)


def test_with_a_student_the_transformer_stays_on_the_hub(hub: Hub, copied: Path) -> None:
    torch.save(dict(networks.dit(seed=1).state_dict()), copied / "rewardforcing.pt")
    loaded = load_bundle("owner/name", student="other/repo/rewardforcing.pt")
    assert hub.calls[0] == ("other/repo", {"file": "rewardforcing.pt"})
    assert loaded.student == copied / "rewardforcing.pt"
    left = {
        name for name in wanted(hub) if "diffusion_pytorch_model" in name and name.endswith(".safetensors")
    }
    assert left == {"vae/diffusion_pytorch_model.safetensors"}
    assert "transformer/config.json" in wanted(hub)


def test_a_student_in_a_folder_of_the_hub(hub: Hub, copied: Path) -> None:
    (copied / "checkpoints").mkdir()
    torch.save(dict(networks.dit(seed=1).state_dict()), copied / "checkpoints" / "ode_init.pt")
    load_bundle(copied, student="gdhe17/Self-Forcing/checkpoints/ode_init.pt")
    assert hub.calls == [("gdhe17/Self-Forcing", {"file": "checkpoints/ode_init.pt"})]


def hub_error(name: str) -> Exception:
    """An error of the hub without the response that it carries."""
    kind = getattr(huggingface_hub.errors, name)
    error: Exception = kind.__new__(kind)
    error.args = (f"{name}\nand more lines",)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            hub_error("RepositoryNotFoundError"),
            "the hub has no owner/name; if it is private, run `hf auth login`",
        ),
        (
            hub_error("GatedRepoError"),
            "owner/name is gated: accept its terms on the hub and run `hf auth login`",
        ),
        (hub_error("RevisionNotFoundError"), "owner/name has no branch, tag or commit 'v9'"),
        (
            OSError(28, "No space left on device"),
            "cannot keep owner/name at revision 'v9' on this machine: the disk is full; .* HF_HOME",
        ),
        (RuntimeError(), "could not download owner/name at revision 'v9': RuntimeError; try again"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failing_hub_is_told_in_one_line(hub: Hub, error: Exception, message: str) -> None:
    hub.error = error
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle("owner/name", revision="v9")
    assert "\n" not in str(caught.value)


def test_a_file_that_the_hub_has_not(hub: Hub, copied: Path) -> None:
    hub.error = hub_error("RemoteEntryNotFoundError")
    assert refused(copied, student="owner/name/x.pt") == "owner/name has no file 'x.pt'"


@pytest.mark.parametrize("student", [None, "owner/name/x.pt"])
def test_offline_tells_what_to_do(
    saved: Path, student: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hub's own code, told to stay offline, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refused("owner/name") if student is None else refused(saved, student=student)
    what = student or "owner/name"
    assert message == (
        f"{what} is not in the local cache and the hub cannot be reached: connect once "
        "(and unset HF_HUB_OFFLINE), or give a local path"
    )
