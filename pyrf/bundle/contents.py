"""What named tensors are: which part of which model, told by their names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from torch import Tensor

from pyrf.config import PATCH, ModelConfig
from pyrf.models import wan21, wan22

Part = Literal["transformer", "codec", "text encoder"]

ANCHORS: dict[Part, str] = {
    "transformer": r"blocks\.\d+\.(?:self_attn\.q|attn1\.to_q)\.weight",
    "codec": r"decoder\.(?:conv1|conv_in|1)\.weight",
    "text encoder": r"blocks\.\d+\.attn\.q\.weight|encoder\.block\.\d+\.layer\.0\.SelfAttention\.q\.weight",
}
"""Names that every file of a part has, in Wan's own spelling or in that of diffusers and transformers."""


class Contents(NamedTuple):
    """What tensors are.

    Attributes:
        part: of a bundle; None when they are no part that pyrf can use.
        name: a phrase for a message.
        hint: what to do with them.
    """

    part: Part | None
    name: str
    hint: str


_TEXT_TO_VIDEO = "pyrf streams text-to-video models; give one of these"
_FAMILIES = (
    (
        r"lora_(?:down|up|A|B|unet|te\d?)\b|lora_unet_|[._]lora\.|lora_linear_layer|\.hada_w|\.lokr_|\.diff_?[bm]?$",
        "a LoRA, which changes a model and is none; give it as an adapter (--lora, adapters=)",
        "give it beside its model: adapters=[FILE], or --lora FILE",
    ),
    (r"(?:^|\.)vace_", "a VACE model, which edits videos", _TEXT_TO_VIDEO),
    (
        r"(?:^|\.)img_emb\.|image_embedder\.|\.k_img\.|\.add_k_proj\.|\.norm_added_k\.",
        "an image-to-video model: it has parts that read an image",
        _TEXT_TO_VIDEO,
    ),
    (r"audio_injector|audio_encoder\.|audio_proj\.", "a speech-to-video model", _TEXT_TO_VIDEO),
    (r"face_adapter\.|pose_patch_embedding\.|motion_encoder\.", "an animation model", _TEXT_TO_VIDEO),
    (r"(?:^|\.)control_adapter\.|(?:^|\.)ref_conv\.", "a model with controls", _TEXT_TO_VIDEO),
)
_NO_PARTS = (
    (
        r"vision_model\.|(?:^|\.)visual\.|(?:^|\.)text_model\.|textual\.|image_encoder\.|logit_scale",
        "an image or text encoder of CLIP's kind",
        "the text encoder of Wan is UMT5",
    ),
    (
        r"double_blocks\.|single_transformer_blocks\.|joint_blocks\.|transformer_blocks\.|input_blocks\.|mid_block\.",
        "a model of another family",
        "pyrf reads those of Wan2.1, and Wan2.2-TI2V-5B",
    ),
)


def contents_of(tensors: Mapping[str, Tensor]) -> Contents | None:
    """What `tensors` are, prefixes of their names or not; None when nothing is known of them."""
    names = list(tensors)
    for pattern, name, hint in _FAMILIES:
        if _some(pattern, names):
            return Contents(None, name, hint)
    if _some(rf"(?:^|\.){ANCHORS['transformer']}$", names):
        return _transformer(tensors)
    if _some(rf"(?:^|\.)(?:{ANCHORS['text encoder']})$", names):
        return _text(names)
    if _some(r"(?:^|\.)decoder\.\d+\.(?:conv\.)?(?:\d+\.)?weight$", names):
        return Contents("codec", "a tiny codec (TAEHV)", "")
    if _some(rf"(?:^|\.){ANCHORS['codec']}$", names):
        return Contents("codec", "a VAE", "")
    for pattern, name, hint in _NO_PARTS:
        if _some(pattern, names):
            return Contents(None, name, hint)
    return None


def other_model(tensors: Mapping[str, Tensor], config: ModelConfig) -> str | None:
    """In which size a transformer is not that of `config`, as a phrase; None when it is.

    Args:
        tensors: under official names.
    """
    patches = tensors.get("patch_embedding.weight")
    if patches is None or patches.ndim != 5:
        return None  # the check of names says so
    dim, channels, *patch = patches.shape
    layers = len({match[1] for match in (re.match(r"blocks\.(\d+)\.", name) for name in tensors) if match})
    if tuple(patch) != PATCH:
        return f"it covers patches of {_sizes(patch)}, the model's are {_sizes(PATCH)}"
    if channels != config.in_channels:
        return f"it reads {channels} latent channels, the model {config.in_channels}"
    if (dim, layers) != (config.dim, config.num_layers):
        return f"it is {_model(dim, layers)}, the model {_model(config.dim, config.num_layers)}"
    return None


def _some(pattern: str, names: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for name in names)


def _sizes(sides: Iterable[int]) -> str:
    return " x ".join(map(str, sides))


def published_name(dim: int, layers: int) -> str | None:
    """The name of a published transformer of these sizes; None where there is none."""
    models = {**wan21.MODELS, **wan22.MODELS}
    known = {(config.dim, config.num_layers): name for name, config in models.items()}
    return known.get((dim, layers))


def _model(dim: int, layers: int) -> str:
    name, sizes = published_name(dim, layers), f"{layers} layers of dim {dim}"
    return f"of {sizes}" if name is None else f"{name} ({sizes})"


def _transformer(tensors: Mapping[str, Tensor]) -> Contents:
    for name, tensor in tensors.items():
        if name.endswith("patch_embedding.weight") and tensor.ndim == 5 and tensor.shape[1] == 36:
            return Contents(None, "an image-to-video model: it reads 36 channels", _TEXT_TO_VIDEO)
    return Contents("transformer", "a transformer of Wan", "")


def _text(names: list[str]) -> Contents:
    """UMT5 has a table of positions in each block, T5 in the first alone."""
    blocks = [
        name for name in names if re.search(r"encoder\.block\.\d+\.layer\.0\.SelfAttention\.q\.weight$", name)
    ]
    tables = [
        name for name in names if re.search(r"encoder\.block\.\d+\..*relative_attention_bias\.weight$", name)
    ]
    if len(tables) == 1 < len(blocks):
        return Contents(None, "a text encoder of T5 (v1.1)", "Wan reads UMT5-XXL, google/umt5-xxl")
    return Contents("text encoder", "a text encoder of UMT5", "")
