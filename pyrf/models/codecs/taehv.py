"""TAEHV: a tiny causal video autoencoder for Wan latents (the layout of `taew2_1` checkpoints).

Per-frame 2-D convolutions; a memory block also sees its own input one frame earlier. So a clip can be
coded chunk by chunk, carrying one frame per block, with the same result as the whole at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.checks import check_whole
from pyrf.loop.inference import inference
from pyrf.models.codecs.codec import check_frames, check_latents, to_uint8
from pyrf.models.wan21 import FPS

Memory = dict[int, Tensor]
"""Index of a memory block in its stack -> the last frame it saw, [B, C, H, W]."""

FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class TAEHVConfig:
    """Widths and strides. The defaults are taew2_1, which codes Wan2.1 latents.

    Raises:
        ValueError: when a value is of another kind or size.

    Attributes:
        encoder_width: channels everywhere in the encoder.
        decoder_widths: channels of the four decoder levels, coarse to fine.
        blocks: memory blocks at each of the three levels.
        patch_size: pixels a side folded into channels at the full-resolution end.
        upscale: which of the three levels, coarse to fine, change resolution by two.
    """

    latent_channels: int = 16
    encoder_width: int = 64
    decoder_widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    blocks: int = 3
    patch_size: int = 1
    upscale: tuple[bool, bool, bool] = (True, True, True)

    def __post_init__(self) -> None:
        for name in ("latent_channels", "encoder_width", "blocks", "patch_size"):
            check_whole(name, getattr(self, name))
        if not isinstance(self.decoder_widths, tuple) or len(self.decoder_widths) != 4:
            raise ValueError(f"decoder_widths must be four whole numbers, got {self.decoder_widths!r}")
        for width in self.decoder_widths:
            check_whole("each of decoder_widths", width)
        if not isinstance(self.upscale, tuple) or [type(level) for level in self.upscale] != [bool] * 3:
            raise ValueError(f"upscale must be three of true and false, got {self.upscale!r}")

    @property
    def spatial_stride(self) -> int:
        return int(self.patch_size * 2 ** sum(self.upscale))

    def to_dict(self) -> dict[str, Any]:
        """The content of a bundle's `vae/config.json`."""
        return {"_class_name": "TAEHV", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TAEHVConfig:
        """Inverse of `to_dict`; raises ValueError for a key that TAEHV does not have."""
        fields: dict[str, Any] = {key: value for key, value in values.items() if not key.startswith("_")}
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(
                f"TAEHV config has unknown keys {unknown}; known: {list(cls.__dataclass_fields__)}"
            )
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        return cls(**fields)


def _conv(n_in: int, n_out: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=bias)


class MemoryBlock(nn.Module):
    """Residual block over a frame and the frame before it (zeros before the first)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width),
            nn.ReLU(inplace=True),
            _conv(width, width),
            nn.ReLU(inplace=True),
            _conv(width, width),
        )

    def forward(self, x: Tensor, batch: int, last: Tensor | None) -> Tensor:
        """x [B*T, C, H, W] -> the same shape; `last` [B, C, H, W] is the frame before x."""
        x_btchw = x.unflatten(0, (batch, -1))
        first = torch.zeros_like(x_btchw[:, :1]) if last is None else last[:, None]
        past = torch.cat([first, x_btchw[:, :-1]], dim=1).flatten(0, 1)
        return F.relu(self.conv(torch.cat([x, past], dim=1)) + x, inplace=not self.training)


class TemporalPool(nn.Module):
    """Joins `stride` successive frames into one by a 1x1 convolution. Channels stay last in memory."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width * stride, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1).unflatten(0, (-1, self.stride)).movedim(1, 3)
        return self.conv(x.flatten(3).movedim(-1, 1))


class Grow(nn.Module):
    """Splits a frame into `stride` successive frames by a 1x1 convolution, and repeats pixels `scale` times.

    The pixels come last, though checkpoints number them first: to a 1x1 convolution it makes no difference,
    and it has fewer of them to see. Channels stay last in memory.
    """

    def __init__(self, width: int, stride: int, scale: int) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).movedim(1, -1).unflatten(-1, (self.stride, -1)).movedim(3, 1)
        x = x.flatten(0, 1).movedim(-1, 1)
        return x if self.scale == 1 else F.interpolate(x, scale_factor=self.scale)


class Clamp(nn.Module):
    """Soft limit of latents to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _run(stack: nn.Sequential, x: Tensor, batch: int, memory: Memory | None) -> Tensor:
    for index, layer in enumerate(stack):
        if not isinstance(layer, MemoryBlock):
            x = layer(x)
            continue
        last = None if memory is None else memory.get(index)
        if memory is not None:
            memory[index] = x.unflatten(0, (batch, -1))[:, -1].clone()
        x = layer(x, batch, last)
    return x


class TAEHV(nn.Module):
    """The network, differentiable; parameters have the names of official checkpoints."""

    def __init__(self, config: TAEHVConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TAEHVConfig()
        pixels = 3 * config.patch_size**2
        width, (w0, w1, w2, w3) = config.encoder_width, config.decoder_widths
        coarse, middle, fine = config.upscale

        def blocks(n: int) -> list[nn.Module]:
            return [MemoryBlock(n) for _ in range(config.blocks)]

        def down(time: int, space: bool) -> list[nn.Module]:
            return [TemporalPool(width, time), _conv(width, width, stride=2 if space else 1, bias=False)]

        def up(n_in: int, n_out: int, time: int, space: bool) -> list[nn.Module]:
            return [nn.Identity(), Grow(n_in, time, 2 if space else 1), _conv(n_in, n_out, bias=False)]

        self.encoder = nn.Sequential(
            _conv(pixels, width),
            nn.ReLU(inplace=True),
            *[*down(2, fine), *blocks(width)],
            *[*down(2, middle), *blocks(width)],
            *[*down(1, coarse), *blocks(width)],
            _conv(width, config.latent_channels),
        )
        self.decoder = nn.Sequential(
            Clamp(),
            _conv(config.latent_channels, w0),
            nn.ReLU(inplace=True),
            *[*blocks(w0), *up(w0, w1, 1, coarse)],
            *[*blocks(w1), *up(w1, w2, 2, middle)],
            *[*blocks(w2), *up(w2, w3, 2, fine)],
            nn.ReLU(inplace=True),
            _conv(w3, pixels),
        )

    def encode(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """Frames [B, 4F, 3, H, W] in [0, 1] -> latents [B, F, C, h, w]; `memory` carries a stream on."""
        batch = x.shape[0]
        x = x.flatten(0, 1)
        if self.config.patch_size > 1:
            x = F.pixel_unshuffle(x, self.config.patch_size)
        x = x.contiguous(memory_format=torch.channels_last)
        return _run(self.encoder, x, batch, memory).unflatten(0, (batch, -1))

    def decode(self, z: Tensor, memory: Memory | None = None) -> Tensor:
        """Latents [B, F, C, h, w] -> frames [B, 4F, 3, H, W], not clamped; `memory` carries a stream on."""
        batch = z.shape[0]
        x = z.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = _run(self.decoder, x, batch, memory)
        if self.config.patch_size > 1:
            x = F.pixel_shuffle(x, self.config.patch_size)
        return x.unflatten(0, (batch, -1))


def decode_frames(network: TAEHV, latents: Tensor, memory: Memory, first: bool) -> Tensor:
    """Latents [B, F, C, h, w] in the network's dtype -> frames uint8 [B, T, H, W, 3]; see `TAEHVDecoder`."""
    x = network.decode(latents, memory)
    if first:
        x = x[:, FRAMES_PER_LATENT - 1 :]
    return to_uint8(x.permute(0, 1, 3, 4, 2)).contiguous()  # TensorRT takes uint8 at a graph's end only


class TAEHVCodec:
    """TAEHV as the codec of a bundle: uint8 frames in and out (the `Codec` protocol)."""

    temporal_stride = FRAMES_PER_LATENT

    def __init__(self, network: TAEHV, *, fps: float = FPS) -> None:
        # torch's annotations leave out `to(memory_format=...)` of a module.
        self.network: TAEHV = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fps = fps

    @property
    def latent_channels(self) -> int:
        return self.network.config.latent_channels

    @property
    def spatial_stride(self) -> int:
        return self.network.config.spatial_stride

    def encode(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, 1 + 4n, H, W, 3] -> latents [B, 1 + n, C, h, w].

        The first frame stands for the four frames of the first latent, as the decoder drops three.

        Raises:
            ValueError: when dtype, number of frames or their size do not fit.
        """
        return self.encoder().encode(frames)

    def encoder(self) -> TAEHVEncoder:
        """An encoder of one stream, which carries its memory from call to call."""
        return TAEHVEncoder(self)

    def decoder(self) -> TAEHVDecoder:
        """A decoder of one stream, which carries its memory from call to call."""
        return TAEHVDecoder(self)


class TAEHVEncoder:
    """Encodes a stream chunk by chunk."""

    def __init__(self, codec: TAEHVCodec) -> None:
        self._codec = codec
        self._memory: Memory = {}
        self._started = False

    @inference()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, T, H, W, 3] -> latents [B, F, C, h, w]; T = 4F, at the first call 4F - 3.

        Raises:
            ValueError: when dtype, number of frames or their size do not fit.
        """
        network, first = self._codec.network, not self._started
        check_frames(frames, self._codec, first=first)
        self._started = True
        weight = next(network.encoder.parameters())
        x = frames.to(weight.device).permute(0, 1, 4, 2, 3).to(weight.dtype) / 255
        if first:
            lead = x[:, :1].expand(-1, FRAMES_PER_LATENT - 1, -1, -1, -1)
            x = torch.cat([lead, x], dim=1)
        return network.encode(x, self._memory)


class TAEHVDecoder:
    """Decodes a stream chunk by chunk."""

    def __init__(self, codec: TAEHVCodec) -> None:
        self._codec = codec
        self._dtype = next(codec.network.decoder.parameters()).dtype
        self._memory: Memory = {}
        self._started = False

    @inference()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, F, C, h, w] -> frames uint8 [B, T, H, W, 3]; T = 4F, at the first call 4F - 3.

        Raises:
            ValueError: when the shape is not that of latents.
        """
        check_latents(latents, self._codec)
        first, self._started = not self._started, True
        return decode_frames(self._codec.network, latents.to(self._dtype), self._memory, first)
