"""The student's calls as modules that take everything as a tensor: what `torch.onnx.export` traces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.config import LatentSize, StreamConfig
from pyrf.export.graphs.fp8 import quantise
from pyrf.export.graphs.nodes import ring_attention_node, write_slot_node
from pyrf.export.graphs.trace import Arguments, TracedGraph, trace, without_outputs
from pyrf.models.dit.model import PromptCache, TimeEmbedding, WanModel, unpatchify


class GraphAttention:
    """Self-attention on a cache that goes in and comes out of the graph (an `Attention`), for tokens [N, D].

    Args:
        keys, values: of each layer, [1, heads, slots * N, head_dim].
        rope: [N, head_dim / 2, 2] float32.
        position, length: [1] int64, see `pyrf.export.manifest`.

    Attributes:
        keys, values: of each layer, replaced by their successors as the layers are traced.
    """

    def __init__(
        self, keys: list[Tensor], values: list[Tensor], rope: Tensor, position: Tensor, length: Tensor
    ) -> None:
        self.keys, self.values = list(keys), list(values)
        self.position, self.length = position, length
        self._cos, self._sin = (part.unsqueeze(0) for part in rope.unbind(-1))

    def for_layer(self, layer: int) -> _GraphLayer:
        return _GraphLayer(self, layer)

    def norm_rotate(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Norm and rotation in float32: [N, D] to [1, heads, N, head_dim] in x's dtype."""
        normed = F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps)
        heads = normed.unflatten(-1, (-1, 2 * self._cos.shape[-1])).transpose(0, 1).unsqueeze(0)
        return torch.onnx.ops.rotary_embedding(heads, self._cos, self._sin, interleaved=True).to(x.dtype)


class _GraphLayer:
    def __init__(self, whole: GraphAttention, layer: int) -> None:
        self.whole, self.layer = whole, layer

    def attend(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        whole, i = self.whole, self.layer
        q, k = whole.norm_rotate(q, norm_q, eps), whole.norm_rotate(k, norm_k, eps)
        v = v.unflatten(-1, (-1, k.shape[-1])).transpose(0, 1).unsqueeze(0)
        whole.keys[i] = write_slot_node(whole.keys[i], k, whole.position)
        whole.values[i] = write_slot_node(whole.values[i], v, whole.position)
        return ring_attention_node(q, whole.keys[i], whole.values[i], whole.length).squeeze(0)


class _Call(nn.Module):
    def __init__(self, model: WanModel) -> None:
        super().__init__()
        self.model = model

    def _time(self, modulation: Tensor) -> TimeEmbedding:
        """The embedding with modulations formed ahead; the blocks then need nothing else of it."""
        rows = modulation.unbind(0)
        blocks = tuple(rows[6 * i : 6 * i + 6] for i in range(len(self.model.blocks)))
        return TimeEmbedding(modulation, modulation, blocks, rows[-2:])


class DenoiseCall(_Call):
    """A denoise call: flow and cache out. Arguments and results as in `pyrf.export.manifest`.

    Tokens go through it without the axis of clips: a product of two axes is one node, of three it is reshaped
    on both sides.
    """

    def forward(
        self,
        latents: Tensor,
        modulation: Tensor,
        rope: Tensor,
        position: Tensor,
        length: Tensor,
        cross_keys: list[Tensor],
        cross_values: list[Tensor],
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        attention = GraphAttention(keys, values, rope, position, length)
        prompt = PromptCache(tuple(cross_keys), tuple(cross_values))
        x = self.model.embed_latents(latents).squeeze(0)
        tokens = self.model.denoise_tokens(x, self._time(modulation), prompt, attention)
        flow = unpatchify(tokens.unsqueeze(0), latents.shape[1], *latents.shape[3:])
        return flow.float(), attention.keys, attention.values


class PromptCall(_Call):
    """Text rows [1, text_len, text_dim] to the cross-attention keys and values of every layer."""

    def forward(self, prompt_embeds: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        prompt = self.model.encode_prompt(prompt_embeds)
        return list(prompt.keys), list(prompt.values)


class TimeCall(_Call):
    """A timestep's sinusoid to the modulations of all layers and the head, [6 L + 2, D]."""

    def forward(self, sinusoid: Tensor) -> Tensor:
        time = self.model.modulate(self.model.embed_sinusoid(sinusoid))
        assert time.blocks is not None
        assert time.head is not None
        return torch.stack([row for rows in (*time.blocks, time.head) for row in rows])


def student_graphs(
    model: WanModel,
    stream: StreamConfig,
    size: LatentSize,
    *,
    fp8_inputs: Mapping[str, float] | None = None,
) -> dict[str, TracedGraph]:
    """Trace every graph of a student, at batch 1.

    Args:
        model: on the CPU, in the dtype to export.
        stream: how it streams.
        size: of the latents.
        fp8_inputs: from `pyrf.export.graphs.fp8.fp8_inputs`, for float8 products; None: none.

    Returns:
        "prompt", "time", "denoise" and "clean".
    """
    config = model.config
    layers, chunk = range(config.num_layers), stream.chunk_frames
    tokens = chunk * size.tokens
    modulation = torch.zeros(6 * len(layers) + 2, config.dim, dtype=model.dtype, device="cpu")

    def each_layer(length: int) -> list[Tensor]:
        shape = (1, config.num_heads, length, config.head_dim)
        return [torch.zeros(shape, dtype=model.dtype, device="cpu") for _ in layers]

    call: Arguments = {
        "latents": torch.zeros(1, chunk, config.in_channels, *size, dtype=torch.float32, device="cpu"),
        "modulation": modulation,
        "rope": torch.zeros(tokens, config.head_dim // 2, 2, dtype=torch.float32, device="cpu"),
        "position": torch.zeros(1, dtype=torch.int64, device="cpu"),
        "length": torch.full((1,), tokens, dtype=torch.int64, device="cpu"),
        "cross_keys": each_layer(config.text_len),
        "cross_values": each_layer(config.text_len),
        "keys": each_layer(stream.slots * tokens),
        "values": each_layer(stream.slots * tokens),
    }
    cache = [f"{name}.{i}" for name in ("keys_out", "values_out") for i in layers]
    prompt = [f"{name}.{i}" for name in ("cross_keys", "cross_values") for i in layers]
    embeds = torch.zeros(1, config.text_len, config.text_dim, dtype=model.dtype, device="cpu")
    sinusoid = torch.zeros(1, 1, config.freq_dim, dtype=torch.float32, device="cpu")
    denoise = trace(DenoiseCall(model), call, ["flow", *cache])
    if fp8_inputs is not None:
        quantise(denoise, fp8_inputs)
    return {
        "prompt": trace(PromptCall(model), {"prompt_embeds": embeds}, prompt),
        "time": trace(TimeCall(model), {"sinusoid": sinusoid}, ["modulation"]),
        "denoise": denoise,
        "clean": without_outputs(denoise, ["flow"]),
    }
