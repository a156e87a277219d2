"""The streaming loop as first published, told literally: un-rotated keys, rolled, cloned, re-rotated.

Slow on purpose. It is what fast code is tested against, and the peer in benchmarks. Follows the
step list of the golden data: batch first, tokens frame-major, keys after the norm and before RoPE.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.config import ModelConfig, StreamConfig


def rope(x: Tensor, positions: Tensor, rows: int, columns: int, theta: float) -> Tensor:
    """Rotate x [B, frames * rows * columns, heads, d] with its frames at the given positions."""
    pairs = x.shape[-1] // 2
    side = x.shape[-1] // 6
    grids = torch.meshgrid(
        positions.double(), torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij"
    )
    angles = []
    for grid, count in zip(grids, (pairs - 2 * side, side, side)):
        frequencies = theta ** (-torch.arange(count).double() / max(count, 1))
        angles.append(grid.flatten()[:, None] * frequencies)
    angle = torch.cat(angles, 1)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]
    videos = []
    for video in x:
        rotated = torch.view_as_complex(video.double().unflatten(-1, (-1, 2))) * turn
        videos.append(torch.view_as_real(rotated).flatten(-2))
    return torch.stack(videos).to(x.dtype)


class ReferenceLoop:
    """One stream under one prompt.

    Args:
        weights: a state dict under the official names, in the dtype to compute in.
        prompt_embeds: [B, text_len, text_dim].
        height, width: of the latents.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        model: ModelConfig,
        stream: StreamConfig,
        prompt_embeds: Tensor,
        height: int,
        width: int,
    ) -> None:
        self.w, self.model, self.stream = weights, model, stream
        self.h, self.w2 = height // 2, width // 2
        self.batch, self.dtype = len(prompt_embeds), prompt_embeds.dtype
        self.frame = self.h * self.w2
        self.capacity = stream.window_frames * self.frame
        self.sink = stream.sink_frames * self.frame
        shape = (self.batch, self.capacity, model.num_heads, model.head_dim)
        self.k = [torch.zeros(shape, dtype=self.dtype) for _ in range(model.num_layers)]
        self.v = [torch.zeros(shape, dtype=self.dtype) for _ in range(model.num_layers)]
        self.global_end = [0] * model.num_layers
        self.used = [0] * model.num_layers
        hidden = F.gelu(self.linear("text_embedding.0", prompt_embeds), approximate="tanh")
        text = self.linear("text_embedding.2", hidden)
        self.text = [self.keys_values(f"blocks.{i}.cross_attn", text) for i in range(model.num_layers)]

        u = torch.linspace(1, 0, 1001)[:-1]
        self.sigmas = stream.shift * u / (1 + (stream.shift - 1) * u)
        self.timesteps = [(1000 * self.sigmas)[1000 - step].item() for step in stream.denoising_steps]
        self.chunk = 0

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.model.eps)
        return x * scale * self.w[f"{name}.weight"]

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.model.num_heads, -1))

    def keys_values(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        k = self.norm(f"{name}.norm_k", self.linear(f"{name}.k", x))
        return self.heads(k), self.heads(self.linear(f"{name}.v", x))

    def queries(self, name: str, x: Tensor) -> Tensor:
        return self.heads(self.norm(f"{name}.norm_q", self.linear(f"{name}.q", x)))

    def attend(self, name: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.linear(f"{name}.o", mixed.transpose(1, 2).flatten(2))

    def self_attention(self, layer: int, x: Tensor, end: int) -> Tensor:
        """Steps 1-3 of a call: evict and average, write, attend."""
        name = f"blocks.{layer}.self_attn"
        q = self.queries(name, x)
        k, v = self.keys_values(name, x)
        tokens = x.shape[1]
        cache_k, cache_v = self.k[layer].clone(), self.v[layer].clone()
        used = self.used[layer]
        if end > self.global_end[layer]:
            evicted = used + tokens - self.capacity
            if evicted > 0:
                for cache in (cache_k, cache_v):
                    self.evict(cache, evicted, used)
                used -= evicted
            used += tokens
        cache_k[:, used - tokens : used] = k
        cache_v[:, used - tokens : used] = v
        self.k[layer], self.v[layer] = cache_k, cache_v
        self.used[layer], self.global_end[layer] = used, end

        frames = used // self.frame
        key_positions = torch.arange(frames)
        query_positions = key_positions[frames - tokens // self.frame :]
        window_k = torch.cat((cache_k[:, : self.sink], cache_k[:, self.sink : used]), 1)
        window_v = torch.cat((cache_v[:, : self.sink], cache_v[:, self.sink : used]), 1)
        grid = (self.h, self.w2, self.model.rope_theta)
        return self.attend(
            name, rope(q, query_positions, *grid), rope(window_k, key_positions, *grid), window_v
        )

    def evict(self, cache: Tensor, count: int, used: int) -> None:
        """Drop the oldest tokens behind the sink, moving the rest left, and average them into the sink."""
        evicted = cache[:, self.sink : self.sink + count].clone()
        kept = cache[:, self.sink + count : used].clone()
        cache[:, self.sink : used - count] = kept
        if self.sink:
            alpha = self.stream.sink_alpha
            cache[:, : self.sink] = alpha * cache[:, : self.sink] + (1 - alpha) * evicted

    def call(self, latents: Tensor, timestep: float) -> Tensor:
        """One network call on the current chunk: the flow, [B, F, C, H, W]."""
        batch, frames = latents.shape[:2]
        x = F.conv3d(
            latents.transpose(1, 2),
            self.w["patch_embedding.weight"],
            self.w["patch_embedding.bias"],
            stride=(1, 2, 2),
        )
        x = x.flatten(2).transpose(1, 2)
        half = self.model.freq_dim // 2
        angles = timestep * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        sinusoid = torch.cat((angles.cos(), angles.sin())).to(self.dtype).expand(batch, frames, -1)
        e = self.linear("time_embedding.2", F.silu(self.linear("time_embedding.0", sinusoid)))
        projected = self.linear("time_projection.1", F.silu(e)).unflatten(-1, (6, -1))
        end = (self.chunk + 1) * frames * self.frame
        for i in range(self.model.num_layers):
            x = self.block(i, x, projected, end)
        shift, scale = (self.w["head.modulation"] + e[:, :, None]).unbind(2)
        x = self.linear("head.head", self.modulate(x, shift, scale))
        x = x.view(batch, frames, self.h, self.w2, 2, 2, -1).permute(0, 1, 6, 2, 4, 3, 5)
        return x.reshape(latents.shape)

    def modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:], eps=self.model.eps).unflatten(1, (shift.shape[1], -1))
        return (normed * (1 + scale[:, :, None]) + shift[:, :, None]).flatten(1, 2)

    def gate(self, x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
        return x + (y.unflatten(1, (gate.shape[1], -1)) * gate[:, :, None]).flatten(1, 2)

    def block(self, i: int, x: Tensor, projected: Tensor, end: int) -> Tensor:
        name = f"blocks.{i}"
        m = (self.w[f"{name}.modulation"] + projected).unbind(2)
        x = self.gate(x, m[2], self.self_attention(i, self.modulate(x, m[0], m[1]), end))
        norm3 = (self.w[f"{name}.norm3.weight"], self.w[f"{name}.norm3.bias"])
        y = F.layer_norm(x, x.shape[-1:], *norm3, self.model.eps)
        x = x + self.attend(f"{name}.cross_attn", self.queries(f"{name}.cross_attn", y), *self.text[i])
        y = F.gelu(self.linear(f"{name}.ffn.0", self.modulate(x, m[3], m[4])), approximate="tanh")
        return self.gate(x, m[5], self.linear(f"{name}.ffn.2", y))

    def sigma(self, timestep: float) -> float:
        nearest = (1000 * self.sigmas - timestep).abs().argmin()
        return self.sigmas[nearest].item()

    def next_chunk(self, noise: Tensor, renoise: list[Tensor]) -> Tensor:
        """Four denoise calls, each but the last followed by new noise, and a clean call."""
        x = noise
        for j, timestep in enumerate(self.timesteps):
            x0 = (x.double() - self.sigma(timestep) * self.call(x, timestep).double()).to(self.dtype)
            if j + 1 < len(self.timesteps):
                sigma = self.sigma(self.timesteps[j + 1])
                x = (1 - sigma) * x0 + sigma * renoise[j]
        self.call(x0, 0.0)
        self.chunk += 1
        return x0


def random_weights(shapes: dict[str, torch.Size], seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights for which every part of the network matters: no zeros, no vanishing gates."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        draw = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith("modulation"):
            draw = 0.5 * draw
        elif ".norm" in name and name.endswith("weight"):
            draw = 1 + 0.2 * draw
        elif name.endswith("weight"):
            draw = draw / math.sqrt(shape[1:].numel())
        else:
            draw = 0.1 * draw
        weights[name] = draw.to(dtype)
    return weights
