"""VideoAlign's files: which there are, what they configure, and their weights in transformers' names.

    checkpoint/model_config.json
    checkpoint/checkpoint-N/model.pth                             the whole network, or
    checkpoint/checkpoint-N/adapter_model.safetensors             the LoRA weights, and
    checkpoint/checkpoint-N/non_lora_state_dict.pth               all else that was trained
    checkpoint/checkpoint-N/tokenizer/                            maybe
    checkpoint/prompt_template.txt                                maybe, the question put to the judge

The published checkpoint is KlingTeam/VideoReward, its base Qwen/Qwen2-VL-2B-Instruct (Liu et al.,
arXiv 2501.13918).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from pyrf.bundle.weights import CheckpointError, read_tensors
from pyrf.evaluation.scores.protocol import ScoreError

DIMENSIONS = ("VQ", "MQ", "TA")
"""Visual quality, motion quality, text alignment."""
REWARD_TOKENS = tuple(f"<|{dimension}_reward|>" for dimension in DIMENSIONS)
PROMPT_FIELD = "{text_prompt}"

DEFAULT_TEMPLATE = f"""\
Watch the video, then rate it on three separate scales. A higher rating is better.

Visual quality: are the single frames sharp, well lit, free of artefacts, and do objects look as they should?
Rating: {REWARD_TOKENS[0]}

Motion quality: do things move clearly, smoothly and plausibly, keep their shape and colour, and not flicker \
or vanish? A video in which hardly anything moves rates low.
Rating: {REWARD_TOKENS[1]}

Text alignment: does the video show what the text asks for, its subjects, actions, place and style?
Text: {PROMPT_FIELD}
Rating: {REWARD_TOKENS[2]}
"""


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class DataSection(_Section):
    """How frames are sampled: `num_frames` of them if given, else `fps` a second."""

    fps: float = Field(default=2.0, gt=0)
    num_frames: int | None = Field(default=None, ge=2)


class ModelSection(_Section):
    """One score per reward token, or all three at each of which the token's own counts."""

    output_dim: Literal[1, 3]
    use_special_tokens: Literal[True]


class LoraSection(_Section):
    """LoRA on every linear layer but those whose name holds an excluded part.

    Without `vision_lora` the vision tower is excluded too, named or not.
    """

    lora_enable: Literal[True]
    lora_r: int = Field(gt=0)
    lora_alpha: int = Field(gt=0)
    lora_namespan_exclude: tuple[str, ...] = ()
    vision_lora: bool = False
    num_lora_modules: Literal[-1] = -1
    use_rslora: bool = False
    lora_modules_to_save: None = None

    @property
    def excluded(self) -> tuple[str, ...]:
        always = ("rm_head",) if self.vision_lora else ("rm_head", "visual")
        return (*self.lora_namespan_exclude, *always)


class VideoAlignConfig(_Section):
    """What of model_config.json matters for scoring."""

    data_config: DataSection
    network: ModelSection = Field(alias="model_config")
    peft_lora_config: LoraSection
    inference_config: dict[str, float]


def load_config(checkpoint: Path) -> VideoAlignConfig:
    """Read model_config.json.

    Raises:
        ScoreError: when it is missing, or lacks or contradicts what scoring needs.
    """
    path = checkpoint / "model_config.json"
    try:
        config = VideoAlignConfig.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise ScoreError(
            f"{path}: no such file; a VideoAlign checkpoint holds model_config.json and checkpoint-N"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise ScoreError(f"{path}: {where}: {first['msg']}") from error
    for name in (f"{d}_{kind}" for d in DIMENSIONS for kind in ("mean", "std")):
        if name not in config.inference_config:
            raise ScoreError(f"{path}: inference_config.{name} is missing")
    return config


def newest_step(checkpoint: Path) -> Path:
    """The folder checkpoint-N with the highest N.

    Raises:
        ScoreError: when there is none.
    """
    steps = {int(m[1]): path for path in checkpoint.glob("checkpoint-*") if (m := _STEP.fullmatch(path.name))}
    if not steps:
        raise ScoreError(f"{checkpoint}: holds no checkpoint-N folder")
    return steps[max(steps)]


_STEP = re.compile(r"checkpoint-(\d+)")


def load_template(checkpoint: Path) -> str:
    """The text put to the judge, from prompt_template.txt in the checkpoint or, without it, our own.

    Raises:
        ScoreError: when it does not hold each reward token once, in order, and the field for the prompt.
    """
    path = checkpoint / "prompt_template.txt"
    template = path.read_text() if path.is_file() else DEFAULT_TEMPLATE
    for part in (*REWARD_TOKENS, PROMPT_FIELD):
        if template.count(part) != 1:
            raise ScoreError(f"{path}: must hold {part} once, found {template.count(part)} times")
    if sorted(REWARD_TOKENS, key=template.index) != list(REWARD_TOKENS):
        raise ScoreError(f"{path}: the tokens must come in the order {', '.join(REWARD_TOKENS)}")
    return template


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ScoreError: when the file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ScoreError(f"{path}: missing or not JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise ScoreError(f"{path}: expected an object, found {type(content).__name__}")
    return content


def read_weights(step: Path, shapes: dict[str, tuple[int, ...]], added_tokens: bool) -> dict[str, Tensor]:
    """Weights of a checkpoint-N folder under the judge's names, checked against them.

    Args:
        shapes: of all parameters of the judge, by name.
        added_tokens: whether the base network lacks the reward tokens' embeddings.

    Returns:
        All parameters, or without model.pth those that training changed.

    Raises:
        ScoreError: on a missing file, a missing or unknown name, or another shape.
    """
    whole = step / "model.pth"
    if whole.is_file():
        return _checked(_read(whole), shapes, list(shapes), whole)
    adapter, rest = step / "adapter_model.safetensors", step / "non_lora_state_dict.pth"
    if not adapter.is_file():
        raise ScoreError(f"{step}: holds neither {whole.name} nor {adapter.name}")
    lora = [name for name in shapes if ".lora_" in name]
    others = ["rm_head.weight"] + ["backbone.language_model.embed_tokens.weight"] * added_tokens
    return {
        **_checked(_read(adapter), shapes, lora, adapter),
        **_checked(_read(rest), shapes, others, rest),
    }


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except CheckpointError as error:
        raise ScoreError(str(error)) from error


def _checked(
    found: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], required: list[str], path: Path
) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for key, tensor in found.items():
        name = judge_name(key)
        if name is None:
            continue
        if name not in shapes:
            raise ScoreError(f"{path}: {key} is not part of the network ({name})")
        if tuple(tensor.shape) != shapes[name]:
            raise ScoreError(
                f"{path}: {key}: expected shape {list(shapes[name])}, found {list(tensor.shape)}"
            )
        weights[name] = tensor
    missing = [name for name in required if name not in weights]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ScoreError(f"{path}: {missing[0]} is missing{more}")
    return weights


def judge_name(key: str) -> str | None:
    """A checkpoint's name for a parameter -> the judge's; None for what the judge has no use for.

    Checkpoints carry peft's prefix, the names of older transformers (`visual`, `model.layers`) or the
    present ones (`model.visual`, `model.language_model.layers`), and LoRA with or without adapter name.
    """
    name = key.removeprefix("base_model.model.")
    if name == "lm_head.weight":  # a judge does not write
        return None
    name = re.sub(r"\.lora_([AB])\.weight$", r".lora_\1.default.weight", name)
    if name.startswith("rm_head."):
        return name
    name = name.removeprefix("model.")
    part = "" if name.startswith(("visual.", "language_model.")) else "language_model."
    return f"backbone.{part}{name}"
