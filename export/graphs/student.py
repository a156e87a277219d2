"""The student's calls as modules that take everything as a tensor: what `torch.onnx.export` traces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.config import LatentSize, StreamConfig
from pyrf.export.graphs.e4m3 import e4m3_node, ring_attention_e4m3_node
from pyrf.export.graphs.fp8 import quantise
from pyrf.export.graphs.nodes import ring_attention_node, write_slot_node
from pyrf.export.graphs.trace import Arguments, TracedGraph, trace, without_outputs
from pyrf.models.dit.model import PromptCache, TimeEmbedding, WanModel, unpatchify
from pyrf.ops.e4m3 import E4M3


class GraphAttention:
    """Self-attention on a cache that goes in and comes out of the graph (an `Attention`), for tokens [N, D].

    Args:
        keys, values: of each layer, [1, heads, slots * N, head_dim]; in e4m3 they stay as they are, and the
            chunk's entries come out.
        rope: [N, head_dim / 2, 2] float32.
        position, length: [1] int64, see `pyrf.export.manifest`.

    Attributes:
        keys, values: of each layer, replaced as the layers are traced: by their successors, or in e4m3 by the
            chunk's entries, [1, heads, N, head_dim].
    """

    def __init__(
        self, keys: list[Tensor], values: list[Tensor], rope: Tensor, position: Tensor, length: Tensor
    ) -> None:
        self.keys, self.values = list(keys), list(values)
        self.position, self.length = position, length
        self._cos, self._sin = (part.unsqueeze(0) for part in rope.unbind(-1))

    def for_layer(self, layer: int) -> _GraphLayer:
        narrow = self.keys[layer].dtype == E4M3
        return _NarrowGraphLayer(self, layer) if narrow else _GraphLayer(self, layer)

    def norm_rotate(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Norm and rotation in float32: [N, D] to [1, heads, N, head_dim]."""
        normed = F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps)
        heads = normed.unflatten(-1, (-1, 2 * self._cos.shape[-1])).transpose(0, 1).unsqueeze(0)
        return torch.onnx.ops.rotary_embedding(heads, self._cos, self._sin, interleaved=True)


class _GraphLayer:
    def __init__(self, whole: GraphAttention, layer: int) -> None:
        self.whole, self.layer = whole, layer

    def attend(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        whole, i = self.whole, self.layer
        q, k = (whole.norm_rotate(x, norm, eps).to(x.dtype) for x, norm in ((q, norm_q), (k, norm_k)))
        v = _by_head(v, k.shape[-1])
        whole.keys[i] = write_slot_node(whole.keys[i], k, whole.position)
        whole.values[i] = write_slot_node(whole.values[i], v, whole.position)
        return ring_attention_node(q, whole.keys[i], whole.values[i], whole.length).squeeze(0)


class _NarrowGraphLayer(_GraphLayer):
    """Of a cache in e4m3, to which keys are rounded once, from float32."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        whole, i = self.whole, self.layer
        keys, values = whole.keys[i], whole.values[i]
        whole.keys[i] = e4m3_node(whole.norm_rotate(k, norm_k, eps))
        whole.values[i] = e4m3_node(_by_head(v, keys.shape[-1]).float())
        q = whole.norm_rotate(q, norm_q, eps).to(q.dtype)
        entries = whole.keys[i], whole.values[i]
        return ring_attention_e4m3_node(q, keys, values, *entries, whole.position, whole.length).squeeze(0)


def _by_head(x: Tensor, head_dim: int) -> Tensor:
    """[N, D] to [1, heads, N, head_dim]."""
    return x.unflatten(-1, (-1, head_dim)).transpose(0, 1).unsqueeze(0)


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
    precision: str | None = None,
    fp8_inputs: Mapping[str, float] | None = None,
) -> dict[str, TracedGraph]:
    """Trace every graph of a student, at batch 1.

    Args:
        model: on the CPU, in the dtype to export.
        stream: how it streams.
        size: of the latents.
        precision: "fp8-attention": cache and products of self-attention in e4m3; None: all in the dtype.
        fp8_inputs: from `pyrf.export.graphs.fp8.fp8_inputs`, for float8 products; None: none.

    Returns:
        "prompt", "time", "denoise" and "clean".
    """
    config = model.config
    layers, chunk = range(config.num_layers), stream.chunk_frames
    tokens = chunk * size.tokens
    modulation = torch.zeros(6 * len(layers) + 2, config.dim, dtype=model.dtype, device="cpu")

    def each_layer(length: int, dtype: torch.dtype = model.dtype) -> list[Tensor]:
        shape = (1, config.num_heads, length, config.head_dim)
        return [torch.zeros(shape, dtype=dtype, device="cpu") for _ in layers]

    cache_dtype = model.dtype if precision is None else E4M3

    call: Arguments = {
        "latents": torch.zeros(1, chunk, config.in_channels, *size, dtype=torch.float32, device="cpu"),
        "modulation": modulation,
        "rope": torch.zeros(tokens, config.head_dim // 2, 2, dtype=torch.float32, device="cpu"),
        "position": torch.zeros(1, dtype=torch.int64, device="cpu"),
        "length": torch.full((1,), tokens, dtype=torch.int64, device="cpu"),
        "cross_keys": each_layer(config.text_len),
        "cross_values": each_layer(config.text_len),
        "keys": each_layer(stream.slots * tokens, cache_dtype),
        "values": each_layer(stream.slots * tokens, cache_dtype),
    }
    cache = [f"{name}.{i}" for name in ("keys_out", "values_out") for i in layers]
    prompt = [f"{name}.{i}" for name in ("cross_keys", "cross_values") for i in layers]
    embeds = torch.zeros(1, config.text_len, config.text_dim, dtype=model.dtype, device="cpu")
    sinusoid = torch.zeros(1, 1, config.freq_dim, dtype=torch.float32, device="cpu")
    # Entries that come out have no place in the cache yet; the cache's successors have its own.
    in_place = {name: name.replace("_out", "") for name in cache} if precision is None else {}
    whole = trace(DenoiseCall(model), call, ["flow", *cache], in_place)
    if fp8_inputs is not None:
        quantise(whole, fp8_inputs)
    return {
        "prompt": trace(PromptCall(model), {"prompt_embeds": embeds}, prompt),
        "time": trace(TimeCall(model), {"sinusoid": sinusoid}, ["modulation"]),
        # Of the entries only the clean call's are kept.
        "denoise": whole if precision is None else without_outputs(whole, cache),
        "clean": without_outputs(whole, ["flow"]),
    }
