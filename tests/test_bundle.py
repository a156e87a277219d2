"""Bundles: saved and loaded whole, both layouts, the hub, and everything that can be wrong with one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import small
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrf import bundle as bundle_module
from pyrf.bundle import Bundle, BundleError, load_bundle, save_bundle
from pyrf.checkpoint import CheckpointError
from pyrf.config import ModelConfig
from pyrf.keymaps import t5_from_transformers
from pyrf.models.wan_vae import WanVAE, build_network

GOLDEN_VAE = Path(__file__).parent / "data" / "golden" / "vae" / "vae_weights.safetensors"


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test changes."""
    return small.bundle(tmp_path_factory.mktemp("saved") / "small")


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "small"))


def edit(path: Path, **values: object) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[name], t) for name, t in expected.items())


def refused(path: Path | str, use: Callable[[Bundle], object] | None = None, **options: Any) -> str:
    """The one-line message with which loading, or a use of the bundle, is refused."""

    def attempt() -> None:
        loaded = load_bundle(path, **options)
        if use is not None:
            use(loaded)

    with pytest.raises((BundleError, CheckpointError)) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundle_comes_back_as_it_was_saved(saved: Path) -> None:
    loaded = load_bundle(saved)
    assert loaded.model_config == small.MODEL
    assert loaded.stream_config == small.STREAM
    assert (loaded.fps, loaded.height, loaded.width) == (12.0, 32, 48)
    assert same(loaded.transformer().state_dict(), small.dit().state_dict())
    codec = loaded.codec()
    latents = torch.randn(1, 3, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.decoder().decode(latents), small.codec().decoder().decode(latents))
    assert codec.fps == 12.0
    prompts = ["a red circle", ""]
    assert torch.equal(loaded.text_encoder().encode(prompts), small.text_encoder().encode(prompts))


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
    ours = small.text_encoder().encode(["a red circle"])
    with torch.no_grad():
        rows = theirs(ids).last_hidden_state
    torch.testing.assert_close(rows, ours[:, : rows.shape[1]], rtol=0, atol=2e-5)
    their_dit = their_transformer(WanTransformer3DModel, saved)
    assert torch.equal(their_dit.proj_out.weight, small.dit().head.head.weight)


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
    assert same(loaded.transformer().state_dict(), small.dit().state_dict())
    assert torch.equal(loaded.text_encoder().encode(["a"]), small.text_encoder().encode(["a"]))


def test_a_bundle_with_the_wan_vae(tmp_path: Path) -> None:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    codec = WanVAE(build_network({"base_dim": 4}), fps=16.0)
    path = save_bundle(
        tmp_path / "wan",
        transformer=small.dit(),
        codec=codec,
        text_encoder=small.text_encoder(),
        stream_config=small.STREAM,
        height=32,
        width=48,
    )
    loaded = load_bundle(path).codec(torch.bfloat16)
    assert isinstance(loaded, WanVAE)
    assert {p.dtype for p in loaded.network.encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in loaded.network.decoder.parameters()} == {torch.bfloat16}
    assert same(load_bundle(path).codec().network.state_dict(), codec.network.state_dict())
    assert same(AutoencoderKLWan.from_pretrained(path / "vae").state_dict(), codec.network.state_dict())


def test_a_plain_diffusers_bundle_gets_the_papers_settings(copied: Path) -> None:
    edit(copied / "model_index.json", pyrf=None)
    loaded = load_bundle(copied)
    assert loaded.stream_config == bundle_module.StreamConfig()
    assert (loaded.fps, loaded.height, loaded.width) == (16.0, 480, 832)
    assert (loaded.model_config.text_len, loaded.model_config.rope_theta) == (512, 10000.0)


# Wan's own layout


@pytest.fixture
def official(saved: Path, tmp_path: Path) -> Path:
    """A small release in Wan's own layout; its weights are those of the small bundle and the golden VAE."""
    path = tmp_path / "Wan2.1-T2V-small"
    (path / "google" / "umt5-xxl").mkdir(parents=True)
    shutil.copy(saved / "tokenizer" / "tokenizer.json", path / "google" / "umt5-xxl")
    config = small.MODEL
    values = {
        "_class_name": "WanModel",
        "_diffusers_version": "0.30.0",
        "model_type": "t2v",
        "dim": config.dim,
        "ffn_dim": config.ffn_dim,
        "num_heads": config.num_heads,
        "num_layers": config.num_layers,
        "text_len": config.text_len,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "in_dim": 16,
        "out_dim": 16,
        "eps": 1e-6,
    }
    (path / "config.json").write_text(json.dumps(values))
    save_file(small.dit().state_dict(), path / "diffusion_pytorch_model.safetensors")
    torch.save(load_file(GOLDEN_VAE), path / "Wan2.1_VAE.pth")
    text = load_file(saved / "text_encoder" / "model.safetensors")
    official_text = {t5_from_transformers(name): tensor.bfloat16() for name, tensor in text.items()}
    torch.save(official_text, path / "models_t5_umt5-xxl-enc-bf16.pth")
    return path


def test_wans_own_layout(official: Path) -> None:
    loaded = load_bundle(official)
    assert loaded.model_config == ModelConfig(**{**vars(small.MODEL), "rope_theta": 10000.0})
    assert loaded.stream_config == bundle_module.StreamConfig()
    assert same(loaded.transformer().state_dict(), small.dit().state_dict())
    codec = loaded.codec()
    assert isinstance(codec, WanVAE)
    assert codec.decoder().decode(torch.zeros(1, 2, 16, 2, 2)).shape == (1, 5, 16, 16, 3)
    expected = small.text_encoder().encode(["a red circle"])
    found = loaded.text_encoder().encode(["a red circle"])
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_wans_own_layout_in_shards(official: Path) -> None:
    weights = small.dit().state_dict()
    (official / "diffusion_pytorch_model.safetensors").unlink()
    shard_of = {
        name: f"diffusion_pytorch_model-0000{i % 2 + 1}-of-00002.safetensors"
        for i, name in enumerate(weights)
    }
    for shard in set(shard_of.values()):
        save_file({n: t for n, t in weights.items() if shard_of[n] == shard}, official / shard)
    index = official / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shard_of}))
    assert same(load_bundle(official).transformer().state_dict(), weights)


@pytest.mark.parametrize(
    "file",
    [
        "diffusion_pytorch_model.safetensors",
        "Wan2.1_VAE.pth",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl/tokenizer.json",
    ],
)
def test_a_file_missing_from_wans_layout_is_named(official: Path, file: str) -> None:
    (official / file).unlink()
    message = refused(official)
    assert message.startswith(str(official / file))
    assert "missing" in message


@pytest.mark.parametrize("part", ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
def test_a_pickle_of_something_else_is_refused(official: Path, part: str) -> None:
    torch.save({"other": torch.zeros(2)}, official / part)
    use = Bundle.codec if part.startswith("Wan") else Bundle.text_encoder
    message = refused(official, use)
    assert message.startswith(str(official / part))
    assert "other [2] is not part of the network" in message


def test_an_image_to_video_release_is_refused(official: Path) -> None:
    edit(official / "config.json", model_type="i2v")
    assert "model_type must be 't2v', found 'i2v'" in refused(official)


# Students


def test_a_student_takes_the_transformers_place(copied: Path, tmp_path: Path) -> None:
    student = small.dit(seed=1).state_dict()
    torch.save({"generator_ema": {f"model.{k}": v for k, v in student.items()}}, tmp_path / "rf.pt")
    (copied / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    loaded = load_bundle(copied, student=str(tmp_path / "rf.pt"))
    assert same(loaded.transformer().state_dict(), student)


def test_a_student_of_another_network_is_refused(saved: Path, tmp_path: Path) -> None:
    other = small.dit(ModelConfig(**{**vars(small.MODEL), "ffn_dim": 40})).state_dict()
    torch.save(dict(other), tmp_path / "rf.pt")
    message = refused(saved, Bundle.transformer, student=tmp_path / "rf.pt")
    assert message == (
        f"{tmp_path / 'rf.pt'}: blocks.0.ffn.0.weight: expected shape [48, 24], found [40, 24] (and 5 more)"
    )


@pytest.mark.parametrize("name", ["nowhere.pt", "a/b/c.txt", "a/b", Path("a/b/c.pt")])
def test_a_student_that_is_nowhere(saved: Path, name: str | Path) -> None:
    message = refused(saved, student=name)
    assert message == f"no student {str(name)!r}: give a file, or 'owner/name/file.pt' on the hub"


# Damage

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


# Saving


def test_nothing_is_overwritten(copied: Path) -> None:
    with pytest.raises(BundleError, match="exists; give a new directory"):
        small.bundle(copied)
    assert load_bundle(copied).model_config == small.MODEL


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module, "_write_text", fail)
    with pytest.raises(BundleError, match=r"cannot write .*small: No space left on device"):
        small.bundle(tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot write"):
        small.bundle(tmp_path / "file" / "small")


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot save a object"):
        save_bundle(
            tmp_path / "b",
            transformer=small.dit(),
            codec=object(),  # type: ignore[arg-type]
            text_encoder=small.text_encoder(),
            stream_config=small.STREAM,
            height=32,
            width=48,
        )


# Names


def test_tiny_is_in_the_package(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = copied.parent / "package"
    shutil.copytree(copied, package / "assets" / "tiny")
    monkeypatch.setattr("importlib.resources.files", lambda name: package if name == "pyrf" else None)
    assert load_bundle("tiny").path == package / "assets" / "tiny"
    shutil.rmtree(package / "assets")
    assert "the bundled model is missing" in refused("tiny")


@pytest.mark.parametrize("name", ["nothing-here", "./a/b", "a/b/c", "", "a b/c", Path("a/b")])
def test_a_name_that_means_nothing(name: str | Path) -> None:
    assert "give 'tiny', a directory, or a hub id 'owner/name'" in refused(name)


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
    return set(huggingface_hub.utils.filter_repo_objects([*USED, *UNUSED], allow_patterns=patterns))


def test_a_hub_id_is_downloaded(hub: Hub, copied: Path) -> None:
    loaded = load_bundle("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", revision="v1")
    assert loaded.path == copied
    repo, options = hub.calls[0]
    assert (repo, options["revision"]) == ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "v1")
    assert wanted(hub) == set(USED)


def test_with_a_student_the_transformer_stays_on_the_hub(hub: Hub, copied: Path) -> None:
    torch.save(dict(small.dit(seed=1).state_dict()), copied / "rewardforcing.pt")
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
    torch.save(dict(small.dit(seed=1).state_dict()), copied / "checkpoints" / "ode_init.pt")
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
            "could not download owner/name at revision 'v9': .*No space left",
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
