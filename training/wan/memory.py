"""Where the memory of a Wan training goes: weights and what follows from them counted, the rest estimated.

Counts are of the fullest process (the first: it holds the tensors too short to be shared out). Not counted:
the VAE's working memory, NCCL's buffers and what the allocator cannot use.

    kept inputs    layers * tokens * dim * 2                       of checkpointed blocks, for the backward
    one block      tokens * (16 dim + 2 ffn) * 2                   computed again, its gradients alive
    no gradient    tokens * (6 dim + ffn) * 2                      teacher, twice the tokens for guidance
    contexts       sum over chunks of min(c, slots - 1) * chunk tokens * 2 * dim * layers * 2
    cache          slots * chunk tokens * 2 * dim * layers * 2, and the sink's hidden halves (one slot)

Without checkpointing every block of a differentiable call counts as "one block".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from pyrf.bundle.weights import unfilled
from pyrf.config import PATCH, ModelConfig
from pyrf.evaluation.scores.settings import VideoAlignSettings, single_scores
from pyrf.models.dit.model import WanModel
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder
from pyrf.training.recipe import WanDmdRecipe, WanOdeRecipe, WanRecipe

FLOAT, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16."""
SPATIAL_STRIDE = 8
"""Of Wan's VAE."""
JUDGE_PARAMETERS = 2_208_985_600
"""Of Qwen2-VL-2B-Instruct: transformers' Qwen2VLForConditionalGeneration on the meta device."""


@dataclass(frozen=True)
class NetworkSize:
    """Parameters of a sharded DiT.

    Attributes:
        parameters: of the whole.
        share: of them that the fullest process keeps.
        gathered: of them that are whole at once: two blocks, one computing and one arriving, and all that
            is in no block.
    """

    parameters: int
    share: int
    gathered: int


def parameters_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def network_size(config: ModelConfig, processes: int) -> NetworkSize:
    """Build a DiT on the meta device and count."""
    with unfilled():
        model = WanModel(config)
    # FSDP2 cuts the first dimension, so a process holds whole rows.
    share = sum(math.ceil(p.shape[0] / processes) * p[0].numel() for p in model.parameters())
    whole, block = parameters_of(model), parameters_of(model.blocks[0])
    return NetworkSize(whole, share, whole - config.num_layers * block + 2 * block)


def text_encoder_parameters() -> int:
    """UMT5-XXL, which every Wan2.1 bundle has."""
    with unfilled():
        return parameters_of(UMT5Encoder(UMT5Config()))


def vae_parameters() -> int:
    """Wan2.1's VAE."""
    from pyrf.models.codecs.wan_vae import build_network

    with torch.device("meta"):
        return parameters_of(build_network({}))


@dataclass(frozen=True)
class Row:
    """A part of a GPU's memory.

    Attributes:
        bytes: of it.
        how: what they are.
    """

    part: str
    bytes: int
    how: str


def activation_rows(recipe: WanRecipe, stage: WanOdeRecipe | WanDmdRecipe) -> list[Row]:
    """What a micro-batch keeps and computes with, see the module."""
    frame = recipe.height * recipe.width // SPATIAL_STRIDE**2 // math.prod(PATCH)
    stream, batch = recipe.stream_config, stage.train.batch
    tokens, chunk = batch * recipe.latent_frames * frame, batch * stream.chunk_frames * frame
    student, teacher = stage.student.config, stage.teacher.config

    def differentiable(config: ModelConfig, kept: int, at_once: int) -> int:
        """`kept` tokens of inputs, `at_once` of them in the block that is computed."""
        block = (16 * config.dim + 2 * config.ffn_dim) * HALF
        if not recipe.checkpointing:
            return config.num_layers * kept * block
        return config.num_layers * kept * config.dim * HALF + at_once * block

    teaching = 2 * tokens * (6 * teacher.dim + teacher.ffn_dim) * HALF
    if isinstance(stage, WanOdeRecipe):
        learning = differentiable(student, tokens, tokens)
        what = "student over the whole clip, or the teacher's guided call while paths are made"
        return [Row("activations (estimate)", max(learning, teaching), what)]
    slot = chunk * 2 * student.dim * student.num_layers * HALF
    chunks = range(stage.dmd.chunks - stage.dmd.window_chunks, stage.dmd.chunks)
    contexts = sum(min(c, stream.slots - 1) for c in chunks) * slot
    rollout = differentiable(student, len(chunks) * chunk, chunk)
    critic = differentiable(stage.critic.config, tokens, tokens)
    return [
        Row("contexts of the rollout", contexts, "keys and values that each chunk's backward needs"),
        Row(
            "activations (estimate)",
            max(rollout + teaching, critic),
            "rollout and the teacher's guided call, or the critic over the whole clip",
        ),
        Row(
            "KV cache of the rollout",
            (stream.slots + 1) * slot,
            f"{stream.slots} slots, sink's hidden halves",
        ),
    ]


def memory_rows(
    recipe: WanRecipe, stage: WanOdeRecipe | WanDmdRecipe, networks: dict[str, NetworkSize]
) -> list[Row]:
    """All parts of the fullest GPU's memory."""
    rows = []
    compute = HALF if recipe.precision == "bfloat16" else FLOAT
    for name, size in networks.items():
        if name == "teacher":
            rows.append(Row("teacher: weights", size.share * compute, "sharded, frozen"))
            continue
        rows += [
            Row(f"{name}: weights", size.share * FLOAT, "sharded, float32"),
            Row(f"{name}: AdamW", size.share * 2 * FLOAT, "two moments"),
        ]
    trained = max(size.share for name, size in networks.items() if name != "teacher")
    rows.append(Row("gradients", trained * FLOAT, "sharded, float32; a step trains one network"))
    rows.append(Row("student: average", networks["student"].share * FLOAT, "sharded, float32"))
    largest = max(size.gathered for size in networks.values())
    rows.append(Row("gathered weights", largest * compute, "two blocks and what is in none, of the largest"))
    rows += activation_rows(recipe, stage)
    rows.append(
        Row("VAE: weights", vae_parameters() * FLOAT, "in float32; its working memory is not counted")
    )
    for reward in single_scores(stage.dmd.reward) if isinstance(stage, WanDmdRecipe) else ():
        if isinstance(reward, VideoAlignSettings):
            bytes_each = HALF if reward.dtype == "bfloat16" else FLOAT
            how = "Qwen2-VL-2B, whole on every GPU"
            rows.append(Row("reward: weights", JUDGE_PARAMETERS * bytes_each, how))
    return rows
