"""`pyrf bench --roofline`: what a chunk costs at least, operation by operation, and what our kernels need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from pyrf.backends.torch.parallel.bands import Bands, check_ranks
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.kernels.instances import Instance
from pyrf.models import wan21, wan22
from pyrf.models.wan21 import LatentGeometry
from pyrf.reports.ceilings import E4M3_CEILINGS, Ceiling
from pyrf.reports.kernels import Resources, resources
from pyrf.reports.roofline import (
    AttentionFloors,
    Sizes,
    Work,
    attention_floors,
    chunk,
    e4m3_kernels,
    merge_floor,
    total_floor,
    total_flops,
    total_sent,
)

if TYPE_CHECKING:
    from rich.table import Table

DTYPE = "bfloat16"
MERGED_RANK = 32
"""Of most published adapters."""
SPLITS = (2, 3, 4, 5, 6, 8)
"""GPUs of a stream; a machine seldom has more."""


class Frame(NamedTuple):
    """A model, and the frame that it makes in pixels."""

    model: ModelConfig
    height: int
    width: int


MODELS = {
    **{name: Frame(model, wan21.HEIGHT, wan21.WIDTH) for name, model in wan21.MODELS.items()},
    **{name: Frame(model, wan22.HEIGHT, wan22.WIDTH) for name, model in wan22.MODELS.items()},
}


@dataclass(frozen=True)
class Line:
    """One operation of a chunk.

    Attributes:
        times: launches per chunk.
        gflop, megabytes, floor_us: of one launch.
        bound: "compute" or "memory".
        registers, shared, spills: registers of a thread, bytes of a block, bytes of a thread; None where the
            kernel is not ours or there is no compiler.
        occupancy: part of an SM's threads that run together, or None.
    """

    name: str
    times: int
    gflop: float
    megabytes: float
    floor_us: float
    bound: str
    registers: int | None = None
    shared: int | None = None
    spills: int | None = None
    occupancy: float | None = None


@dataclass(frozen=True)
class SplitFloor:
    """The same chunk, split over several GPUs.

    Attributes:
        gpus: how many; `why_not`: why the stream cannot be split so, else empty, and the rest None.
        band_tokens: of the GPU that has the most.
        sent_megabytes: from a GPU to the others, per chunk.
        exchange_ms: of the floor, what the exchanges take.
        floor_ms, frames_per_second, cache_gigabytes: see `ModelFloor`; the cache is a GPU's.
    """

    gpus: int
    why_not: str = ""
    band_tokens: int | None = None
    sent_megabytes: float | None = None
    exchange_ms: float | None = None
    floor_ms: float | None = None
    frames_per_second: float | None = None
    cache_gigabytes: float | None = None


@dataclass(frozen=True)
class ModelFloor:
    """A steady chunk of one model.

    Attributes:
        height, width: of a frame, in pixels.
        tokens, window_tokens: of a chunk, and of the cache that it attends to.
        floor_ms: one operation after another, each at its floor.
        compute_ms: the operations alone, at the peak rate.
        frames_per_second: frames of a chunk over the floor; no decoding, no waiting.
        cache_gigabytes: keys and values of all layers.
        merge_ms: of a change of an adapter's strength, with rank `MERGED_RANK`.
        merge_from_cpu_ms: the same, where the base's weights are kept on the CPU.
        splits: the same on several GPUs.
        e4m3_lines: one launch each of the kernels of e4m3, none of which is part of this chunk.
        e4m3_attention: attention over bfloat16 and over e4m3, on several GPUs.
    """

    model: str
    height: int
    width: int
    tokens: int
    window_tokens: int
    tflop: float
    floor_ms: float
    compute_ms: float
    frames_per_second: float
    cache_gigabytes: float
    merge_ms: float
    merge_from_cpu_ms: float
    lines: list[Line]
    splits: list[SplitFloor]
    e4m3_lines: list[Line]
    e4m3_attention: list[AttentionFloors]


@dataclass(frozen=True)
class RooflineTable:
    """Floors of some models.

    Attributes:
        compiler: the architecture that the kernels were compiled for, or why that is unknown.
    """

    device: Ceiling
    compiler: str
    models: list[ModelFloor]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def _line(work: Work, sizes: Sizes, device: Ceiling, found: dict[Instance, Resources]) -> Line:
    line = Line(
        name=work.name,
        times=work.times,
        gflop=work.flops / 1e9,
        megabytes=work.bytes / 1e6,
        floor_us=1e6 * work.floor(device) / work.times,
        bound=work.bound(device),
    )
    instance = Instance.serving(work.name, DTYPE, sizes.model.num_heads, sizes.model.head_dim)
    needs = found.get(instance) if instance else None
    if needs is None:
        return line
    threads, dynamic = needs.instance.block(sizes.model.num_heads)
    shared = needs.shared + dynamic
    occupancy = device.sm.occupancy(threads, needs.registers, shared)
    return replace(line, registers=needs.registers, shared=shared, spills=needs.spills, occupancy=occupancy)


def _floor(
    name: str, frame: Frame, stream: StreamConfig, device: Ceiling, found: dict[Instance, Resources]
) -> ModelFloor:
    latents = wan22.geometry_of(frame.model.in_channels)
    sizes = Sizes.of(frame.model, stream, frame.height, frame.width, latents)
    works = chunk(sizes)
    seconds, flops = total_floor(works, device), total_flops(works)
    return ModelFloor(
        model=name,
        height=frame.height,
        width=frame.width,
        tokens=sizes.tokens,
        window_tokens=sizes.window,
        tflop=flops / 1e12,
        floor_ms=1e3 * seconds,
        compute_ms=1e3 * flops / device.flops,
        frames_per_second=latents.temporal_stride * sizes.stream.chunk_frames / seconds,
        cache_gigabytes=sizes.cache_bytes / 1e9,
        merge_ms=1e3 * merge_floor(sizes.model, MERGED_RANK, device),
        merge_from_cpu_ms=1e3 * merge_floor(sizes.model, MERGED_RANK, device, from_cpu=True),
        lines=[_line(work, sizes, device, found) for work in works],
        splits=[_split(frame, sizes, latents, device, gpus) for gpus in SPLITS],
        e4m3_lines=[_line(work, sizes, device, {}) for work in e4m3_kernels(sizes)],
        e4m3_attention=[attention_floors(sizes, each) for each in E4M3_CEILINGS],
    )


def _split(frame: Frame, sizes: Sizes, latents: LatentGeometry, device: Ceiling, gpus: int) -> SplitFloor:
    size = LatentSize(frame.height // latents.spatial_stride, frame.width // latents.spatial_stride)
    try:
        check_ranks(frame.model.num_heads, gpus)
        share = Bands.of(size, gpus).largest_share
    except ValueError as error:
        return SplitFloor(gpus, str(error))
    own = replace(sizes, ranks=gpus, share=share)
    works = chunk(own)
    seconds = total_floor(works, device)
    return SplitFloor(
        gpus=gpus,
        band_tokens=own.band,
        sent_megabytes=total_sent(works) / 1e6,
        exchange_ms=1e3 * total_floor([work for work in works if work.sent], device),
        floor_ms=1e3 * seconds,
        frames_per_second=latents.temporal_stride * sizes.stream.chunk_frames / seconds,
        cache_gigabytes=own.cache_bytes / 1e9,
    )


def report(
    models: dict[str, Frame] | None = None,
    stream: StreamConfig | None = None,
    device: Ceiling | None = None,
) -> RooflineTable:
    """Floors of a steady chunk. Compiles the kernels, which takes seconds, where there is a compiler.

    Args:
        models: by name; by default both sizes of Wan2.1, and Wan2.2-TI2V-5B.
        stream: by default that of Reward Forcing.
        device: by default an H100, for which the kernels are compiled in any case.

    Raises:
        ValueError: when a frame is no whole number of tokens.
    """
    stream, device = stream or StreamConfig(), device or Ceiling()
    try:
        found, compiler = resources("90a"), "sm_90a"
    except RuntimeError as error:  # no compiler, or one that fails: an old one, say
        found, compiler = {}, f"unknown: {error}"
    floors = [_floor(name, each, stream, device, found) for name, each in (models or MODELS).items()]
    return RooflineTable(device, compiler, floors)


COLUMNS = ("operation", "launches", "GFLOP", "MB", "floor us", "bound", "ms/chunk")
OUR_COLUMNS = ("registers", "shared KiB", "spills B", "occupancy")


def _table(floor: ModelFloor, *, compiled: bool) -> Table:
    from rich.table import Table

    title = (
        f"{floor.model} at {floor.height} x {floor.width}: a chunk of {floor.tokens} tokens, "
        f"window of {floor.window_tokens}"
    )
    table = Table(title=title, title_justify="left", show_footer=True)
    columns = [*COLUMNS, *(OUR_COLUMNS if compiled else ())]
    footers = {
        "operation": "a chunk",
        "GFLOP": f"{1e3 * floor.tflop:,.0f}",
        "ms/chunk": f"{floor.floor_ms:.1f}",
    }
    for name in columns:
        left = name in ("operation", "bound")
        table.add_column(name, footers.get(name, ""), justify="left" if left else "right", no_wrap=True)
    for line in floor.lines:
        cells = [line.name, str(line.times), f"{line.gflop:.2f}", f"{line.megabytes:.1f}"]
        cells += [f"{line.floor_us:.1f}", line.bound, f"{line.times * line.floor_us / 1e3:.2f}"]
        if line.registers is not None and line.shared is not None:
            cells += [str(line.registers), f"{line.shared / 1024:.1f}", str(line.spills)]
            cells += [f"{100 * (line.occupancy or 0):.0f} %"]
        table.add_row(*cells)
    return table


def _split_table(floor: ModelFloor) -> Table:
    from rich.table import Table

    table = Table(title="one stream on several GPUs; nothing of this is measured", title_justify="left")
    for name in ("GPUs", "tokens", "MB sent", "exchange ms", "ms/chunk", "at most FPS", "cache GB"):
        table.add_column(name, justify="right", no_wrap=True)
    for split in floor.splits:
        if split.floor_ms is None:
            table.add_row(str(split.gpus), "does not fit")
            continue
        figures = (split.sent_megabytes, split.exchange_ms, split.floor_ms, split.frames_per_second)
        cells = [f"{figure:,.1f}" for figure in figures]
        table.add_row(str(split.gpus), str(split.band_tokens), *cells, f"{split.cache_gigabytes:.2f}")
    return table


def _e4m3_tables(floor: ModelFloor) -> Iterator[Table]:
    from rich.table import Table

    table = Table(
        title="one launch of each kernel of e4m3; nothing of this is measured", title_justify="left"
    )
    for name in COLUMNS[0], *COLUMNS[2:6]:
        left = name in ("operation", "bound")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for line in floor.e4m3_lines:
        figures = f"{line.gflop:.2f}", f"{line.megabytes:.1f}", f"{line.floor_us:.1f}"
        table.add_row(line.name, *figures, line.bound)
    yield table
    table = Table(title="one attention at least, in microseconds", title_justify="left")
    for name in ("GPU", "bfloat16", "e4m3", "e4m3 by mma.sync"):
        table.add_column(name, justify="left" if name == "GPU" else "right", no_wrap=True)
    for gpu, *floors in floor.e4m3_attention:
        table.add_row(gpu, *(f"{each:.1f}" for each in floors))
    yield table


def show(found: RooflineTable) -> None:
    """Print the report as tables."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140  # a file has no width to fit
    device = found.device
    console.print(
        f"{device.name}: {device.flops / 1e12:g} TFLOP/s, {device.bandwidth / 1e12:g} TB/s; "
        f"{DTYPE}, batch 1; kernels compiled for: {found.compiler}",
        soft_wrap=True,
    )
    for floor in found.models:
        console.print()
        console.print(_table(floor, compiled=not found.compiler.startswith("unknown")))
        console.print(
            f"{floor.tflop:.1f} TFLOP a chunk: {floor.compute_ms:.1f} ms of computing alone, "
            f"{floor.floor_ms:.1f} ms with memory, so at most {floor.frames_per_second:.1f} FPS before "
            f"decoding; the cache takes {floor.cache_gigabytes:.2f} GB",
            soft_wrap=True,
        )
        console.print(
            f"an adapter of rank {MERGED_RANK} changes its strength in {floor.merge_ms:.1f} ms, or "
            f"{floor.merge_from_cpu_ms:.1f} ms with the base's weights on the CPU",
            soft_wrap=True,
        )
        console.print(_split_table(floor))
        for table in _e4m3_tables(floor):
            console.print(table)
