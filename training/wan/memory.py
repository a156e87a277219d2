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

from pyrf.bundle.weights import unfilled
from pyrf.config import PATCH, ModelConfig, StreamConfig
from pyrf.evaluation.scores.settings import ScoreSettings, VideoAlignSettings, single_scores
from pyrf.memory.bill import MemoryRow
from pyrf.memory.counts import parameters_of, slot_numbers, text_parameters
from pyrf.models.dit.model import WanModel
from pyrf.models.text.umt5 import UMT5Config
from pyrf.models.wan21 import LATENTS, LatentGeometry
from pyrf.models.wan22 import LATENTS as LATENTS_22
from pyrf.training.needs import NetworkSize

FLOAT, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16."""
JUDGE_PARAMETERS = 2_208_985_600
"""Of Qwen2-VL-2B-Instruct: transformers' Qwen2VLForConditionalGeneration on the meta device."""


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
    return text_parameters(UMT5Config())


def vae_parameters(latent_channels: int = LATENTS.latent_channels) -> int:
    """Wan2.1's VAE, or Wan2.2's."""
    from pyrf.models.codecs.wan22_vae import CONFIG
    from pyrf.models.codecs.wan_vae import build_network

    with torch.device("meta"):
        return parameters_of(build_network(CONFIG if latent_channels == LATENTS_22.latent_channels else {}))


@dataclass(frozen=True)
class Clip:
    """One micro-batch, and how it is computed.

    Attributes:
        height, width: pixels.
        checkpointing: whether each block is computed again in the backward.
        latents: what a latent frame stands for.
    """

    batch: int
    latent_frames: int
    height: int
    width: int
    stream: StreamConfig
    checkpointing: bool
    latents: LatentGeometry = LATENTS

    def tokens(self, latent_frames: int) -> int:
        """Tokens of as many latent frames of the whole micro-batch."""
        frame = self.height * self.width // self.latents.spatial_stride**2 // math.prod(PATCH)
        return self.batch * latent_frames * frame

    def differentiable(self, config: ModelConfig, kept: int, at_once: int) -> int:
        """Bytes of a call with a gradient: `kept` tokens of inputs, `at_once` of them in a block."""
        block = (16 * config.dim + 2 * config.ffn_dim) * HALF
        if not self.checkpointing:
            return config.num_layers * kept * block
        return config.num_layers * kept * config.dim * HALF + at_once * block

    def teaching(self, teacher: ModelConfig) -> int:
        """Bytes of the teacher's guided call over the whole clip."""
        return 2 * self.tokens(self.latent_frames) * (6 * teacher.dim + teacher.ffn_dim) * HALF


def ode_rows(clip: Clip, student: ModelConfig, teacher: ModelConfig) -> list[MemoryRow]:
    """What a micro-batch of ODE regression keeps and computes with, see the module."""
    tokens = clip.tokens(clip.latent_frames)
    most = max(clip.differentiable(student, tokens, tokens), clip.teaching(teacher))
    what = "student over the whole clip, or the teacher's guided call while paths are made"
    return [MemoryRow("activations (estimate)", most, what)]


def dmd_rows(
    clip: Clip, student: ModelConfig, critic: ModelConfig, teacher: ModelConfig, chunks: range
) -> list[MemoryRow]:
    """The same of distribution matching; `chunks` of the rollout carry a gradient."""
    tokens, chunk = clip.tokens(clip.latent_frames), clip.tokens(clip.stream.chunk_frames)
    slots = clip.stream.slots
    slot = slot_numbers(student, chunk) * HALF
    contexts = sum(min(c, slots - 1) for c in chunks) * slot
    rollout = clip.differentiable(student, len(chunks) * chunk, chunk)
    most = max(rollout + clip.teaching(teacher), clip.differentiable(critic, tokens, tokens))
    what = "rollout and the teacher's guided call, or the critic over the whole clip"
    return [
        MemoryRow("contexts of the rollout", contexts, "keys and values that each chunk's backward needs"),
        MemoryRow("activations (estimate)", most, what),
        MemoryRow("KV cache of the rollout", (slots + 1) * slot, f"{slots} slots, sink's hidden halves"),
    ]


def score_rows(settings: ScoreSettings | None) -> list[MemoryRow]:
    """Weights of the networks among the scores that make a reward."""
    how = "Qwen2-VL-2B, whole on every GPU"
    return [
        MemoryRow("reward: weights", JUDGE_PARAMETERS * (HALF if score.dtype == "bfloat16" else FLOAT), how)
        for score in single_scores(settings)
        if isinstance(score, VideoAlignSettings)
    ]


def weight_rows(networks: dict[str, NetworkSize], compute: int) -> list[MemoryRow]:
    """Weights and what belongs to them; `compute` bytes per weight where it is computed with."""
    rows = []
    for name, size in networks.items():
        if name == "teacher":
            rows.append(MemoryRow("teacher: weights", size.share * compute, "sharded, frozen"))
            continue
        rows += [
            MemoryRow(f"{name}: weights", size.share * FLOAT, "sharded, float32"),
            MemoryRow(f"{name}: AdamW", size.share * 2 * FLOAT, "two moments"),
        ]
    trained = max(size.share for name, size in networks.items() if name != "teacher")
    largest = max(size.gathered for size in networks.values())
    return [
        *rows,
        MemoryRow("gradients", trained * FLOAT, "sharded, float32; a step trains one network"),
        MemoryRow("student: average", networks["student"].share * FLOAT, "sharded, float32"),
        MemoryRow("gathered weights", largest * compute, "two blocks and what is in none, of the largest"),
    ]


def vae_row(latent_channels: int) -> MemoryRow:
    """Weights of the VAE."""
    how = "in float32; its working memory is not counted"
    return MemoryRow("VAE: weights", vae_parameters(latent_channels) * FLOAT, how)
