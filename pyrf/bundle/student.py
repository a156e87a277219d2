"""A student: the weights that take a transformer's place, and how its own folder says that it streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pyrf.bundle.json_file import BundleError, JsonFile, naming
from pyrf.bundle.sniff import form_of
from pyrf.bundle.stream_choice import whole_window
from pyrf.bundle.weights import find_weights
from pyrf.config import StreamConfig

DIT_CLASSES = ("WanTransformer3DModel", "CausalWanTransformer3DModel")
"""Of diffusers and of FastVideo, with the same weights."""
WAN_CLASSES = ("WanModel", "CausalWanModel")

STUDENT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
"""Of files of weights."""


def student_file(path: Path) -> Path:
    """The file of weights that a student is: `path` itself, or what lies in a folder of diffusers or Wan.

    Raises:
        BundleError: when the folder holds no one student.
        CheckpointError: when its weights are missing.
    """
    if not path.is_dir():
        return path
    if (path / "model_index.json").is_file():
        refuse_other_pipelines(JsonFile(path / "model_index.json"))
    config = _config(path)
    if config is not None:
        config.require("_class_name", *DIT_CLASSES, *WAN_CLASSES, default=WAN_CLASSES[0])
        return find_weights(config.path.parent, "diffusion_pytorch_model", "model")
    refuse_distributed(path)
    files = sorted(file for file in path.iterdir() if file.suffix in STUDENT_SUFFIXES and file.is_file())
    if len(files) == 1:
        return files[0]
    for file in sorted(path.glob("*.gguf")) if not files else ():
        raise BundleError(f"{file}: {form_of(file)}")
    names = ", ".join(file.name for file in files[:5]) or "none"
    raise BundleError(f"{path}: no folder of one student; give its file. Files of weights there: {names}")


def refuse_distributed(path: Path) -> None:
    """Refuse a folder that torch's distributed checkpoint wrote, or that holds one.

    Raises:
        BundleError: saying how it is joined.
    """
    for folder in (path, *sorted(path.glob("*/"))):
        if (folder / ".metadata").is_file():
            raise BundleError(
                f"{folder}: a distributed checkpoint of torch; join it: "
                f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} student.pt"
            )
        if any(folder.glob("*.distcp")):
            raise BundleError(
                f"{folder}: parts of a distributed checkpoint of torch without its .metadata; fetch that, too"
            )


def student_stream(path: Path, stream: StreamConfig) -> StreamConfig:
    """How a student streams: as its folder says, else as the model in whose place it comes.

    Raises:
        BundleError: when the folder asks for what no stream has.
    """
    config, settings = _config(path), student_settings(path)
    with naming(path if config is None else config.path):
        return replace(stream, **settings)


def student_settings(path: Path) -> dict[str, Any]:
    """What a student's own folder says of streaming, see `stream_settings`; of a file nothing is known.

    Raises:
        BundleError: when a value is none of these numbers.
    """
    config = _config(path)
    return {} if config is None else stream_settings(config)


def stream_settings(config: JsonFile) -> dict[str, Any]:
    """What follows from a transformer's config.json for streaming, as fields of `StreamConfig`.

    A causal student that says nothing of a window, or `local_attn_size` -1, looks back at everything: its
    window is as `whole_window` says.

    Raises:
        BundleError: when a value is no such number.
    """
    settings = said_settings(config)
    if "chunk_frames" in settings and "window_frames" not in settings:
        settings |= {"window_frames": whole_window(settings["chunk_frames"]), "sink_frames": 0}
    return settings


def said_settings(config: JsonFile) -> dict[str, Any]:
    """What a transformer's config.json says itself: a student of FastVideo or Self Forcing does so, in
    latent frames.

    Raises:
        BundleError: when a value is no such number.
    """
    values = config.values
    names = [name for name in ("num_frames_per_block", "num_frame_per_block") if values.get(name) is not None]
    settings: dict[str, Any] = {}
    if names:
        settings["chunk_frames"] = config.whole(names[0])
    if values.get("local_attn_size") not in (None, -1):
        settings |= {
            "window_frames": config.whole("local_attn_size"),
            "sink_frames": values.get("sink_size") or 0,
        }
    return settings


def refuse_other_pipelines(index: JsonFile) -> None:
    """Refuse a model_index.json of a pipeline that is not one model of text to video.

    Raises:
        BundleError: saying which it is.
    """
    values = index.values
    second = values.get("transformer_2")
    if values.get("boundary_ratio") is not None or (second and any(second)):
        raise BundleError(
            f"{index.path}: Wan2.2-A14B, a Wan2.2 model of two experts (transformer_2, boundary_ratio); one "
            "of them alone gives wrong pictures; give a model of one transformer, such as Wan2.2-TI2V-5B"
        )
    if (index.path.parent / "transformer_2").is_dir():
        raise BundleError(
            f"{index.path.parent / 'transformer_2'}: the second expert of a Wan2.2 model; "
            "give a model of one transformer, such as Wan2.1-T2V-1.3B"
        )
    image = values.get("image_encoder")
    if image and any(image):
        raise BundleError(f"{index.path}: an image-to-video model (image_encoder); give a text-to-video one")


def _config(path: Path) -> JsonFile | None:
    """The config.json of a transformer's folder, or of the transformer in a pipeline's."""
    for folder in (path / "transformer", path):
        if (folder / "config.json").is_file():
            return JsonFile(folder / "config.json")
    return None
