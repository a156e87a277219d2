"""Shapes of the network and of the stream: frozen, validated, free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, get_args

from pyrf.checks import check_positive, check_whole, is_number

PATCH = (1, 2, 2)
"""Latent frames, rows and columns a token covers, the same in every Wan model."""

MAX_SEED = 2**63 - 1
"""Of a stream's noise."""
MAX_TEXTS = 8
"""Texts of one weighted prompt; each of them is encoded."""
MAX_OVER_S = 3600.0
"""Seconds of a transition from one prompt to another."""

MAX_ADAPTERS = 64
"""Whose strengths are named at once."""
MAX_STRENGTH = 10.0
"""Of an adapter, either way; beyond it every picture is noise."""

MIN_FPS, MAX_FPS = 1e-3, 1e5
"""Frames a second that a video may have."""

SAMPLERS = ("renoise", "unipc")
"""What happens between the denoise calls of a chunk: fresh noise is added, or a step of `pyrf.loop.unipc`."""

MAX_WINDOW_FRAMES = 4096
"""Latent frames that a chunk may see; 17 minutes at Wan's rate, far more than any cache holds."""

StartKind = Literal["still", "first_frame"]
"""How an image begins a stream. still: a chunk of the image is the stream's past, and what is shown comes
after it. first_frame: the image's latent frame is the stream's first, clean (at timestep 0) in every call of
the first chunk."""
STARTS: tuple[StartKind, ...] = get_args(StartKind)
DEFAULT_START: StartKind = "first_frame"
"""The smoother one by `benchmarks/image_starts.py`. Exported graphs, which have one timestep per chunk, take
"still" in its place."""

Fit = Literal["crop", "pad", "refuse"]
"""How a picture of other sides becomes a frame: scaled to cover it and cropped evenly; scaled to lie within
it, with black bars; or not at all."""
FITS: tuple[Fit, ...] = get_args(Fit)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a Wan DiT. The defaults are Wan2.1-T2V-1.3B.

    Raises:
        ValueError: when the sizes cannot form a network.
    """

    dim: int = 1536
    ffn_dim: int = 8960
    num_heads: int = 12
    num_layers: int = 30
    text_len: int = 512
    text_dim: int = 4096
    freq_dim: int = 256
    in_channels: int = 16
    out_channels: int = 16
    eps: float = 1e-6
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check = check_positive if name in ("eps", "rope_theta") else check_whole
            check(name, value)
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(
                f"dim must split into heads of an even size, got dim={self.dim}, num_heads={self.num_heads}"
            )
        if self.freq_dim % 2:
            raise ValueError(f"freq_dim must be even, got {self.freq_dim}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def rope_pairs(self) -> tuple[int, int, int]:
        """How many channel pairs of a head turn with the frame, with the row and with the column."""
        side = self.head_dim // 6
        return self.head_dim // 2 - 2 * side, side, side


class _Sides(NamedTuple):
    height: int
    width: int


class LatentSize(_Sides):
    """Height and width of latents; those of frames in pixels are plain `height` and `width`.

    Raises:
        ValueError: when the latents do not split into tokens.
    """

    __slots__ = ()

    def __new__(cls, height: int, width: int) -> Self:
        if height < PATCH[1] or width < PATCH[2] or height % PATCH[1] or width % PATCH[2]:
            raise ValueError(f"latents must have a positive, even height and width, got {height} x {width}")
        return super().__new__(cls, height, width)

    @property
    def rows(self) -> int:
        """Of tokens."""
        return self.height // PATCH[1]

    @property
    def columns(self) -> int:
        """Of tokens."""
        return self.width // PATCH[2]

    @property
    def tokens(self) -> int:
        """Of a latent frame."""
        return self.rows * self.columns


def _check_steps(name: str, steps: tuple[int, ...]) -> None:
    if not isinstance(steps, tuple):
        raise ValueError(f"{name} must hold whole numbers, got {steps!r}")
    for step in steps:
        check_whole(f"each of {name}", step)
    if not steps or list(steps) != sorted(set(steps), reverse=True) or steps[0] > 1000 or steps[-1] < 1:
        raise ValueError(f"{name} must fall strictly within 1000..1, got {steps}")


@dataclass(frozen=True)
class StreamConfig:
    """How a stream is cut into chunks and what each chunk may look back at.

    All lengths are in latent frames. The window holds the sink, the ring of past chunks and the
    current chunk (Reward Forcing, section 3.2: window 9 = sink 3 + past 3 + current 3).

    Attributes:
        denoising_steps: timesteps of a chunk's denoise calls before the shift, falling.
        first_chunk_steps: those of a stream's first chunk, which has no past to hold on to; None: the same.
        sampler: one of `SAMPLERS`.

    Raises:
        ValueError: when the geometry is one the cache cannot hold.
    """

    chunk_frames: int = 3
    window_frames: int = 9
    sink_frames: int = 3
    sink_alpha: float = 0.999
    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    shift: float = 5.0
    first_chunk_steps: tuple[int, ...] | None = None
    sampler: str = "renoise"

    def __post_init__(self) -> None:
        chunk, window, sink = self.chunk_frames, self.window_frames, self.sink_frames
        check_whole("chunk_frames", chunk)
        check_whole("window_frames", window, most=MAX_WINDOW_FRAMES)
        check_whole("sink_frames", sink, least=0)
        if sink not in (0, chunk):
            raise ValueError(f"sink_frames must be 0 or chunk_frames ({chunk}), got {sink}")
        if window % chunk or window < sink + chunk:
            raise ValueError(
                f"window_frames must be a multiple of chunk_frames ({chunk}) and at least "
                f"sink_frames + chunk_frames ({sink + chunk}), got {window}"
            )
        if not is_number(self.sink_alpha) or not 0.0 <= self.sink_alpha <= 1.0:
            raise ValueError(f"sink_alpha must lie in [0, 1], got {self.sink_alpha!r}")
        _check_steps("denoising_steps", self.denoising_steps)
        if self.first_chunk_steps is not None:
            _check_steps("first_chunk_steps", self.first_chunk_steps)
        check_positive("shift", self.shift)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be {' or '.join(SAMPLERS)}, got {self.sampler!r}")

    @property
    def slots(self) -> int:
        """Chunks that the cache of a layer holds, the sink and the current chunk included."""
        return self.window_frames // self.chunk_frames
