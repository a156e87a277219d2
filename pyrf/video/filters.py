"""FFmpeg's filters between RGB frames and what files hold: colours by BT.709 out, by a file's own tags in."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

BT709 = 1
"""In FFmpeg's words: matrix, primaries and transfer of HD video."""
LIMITED, FULL = 1, 2
"""Ranges of levels: 16..235, and 0..255."""

_EXACT = "flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_UNSAID = (2, 3)


def to_bt709(height: int, width: int, pixel_format: str, time_base: Fraction) -> Any:
    """RGB frames to limited-range BT.709, as the tags of a file then say."""
    return _graph(
        {"width": width, "height": height, "format": "rgb24", "time_base": time_base},
        ("scale", f"in_range=pc:out_color_matrix=bt709:out_range=tv:{_EXACT}"),
        ("format", pixel_format),
    )


def to_rgb(frame: Any, *, alpha: bool) -> Any:
    """A filter for frames like a decoded one to full-range RGB.

    Colours without a tag are taken as players do: BT.709 from 720 rows on, else BT.601.

    Raises:
        ValueError: when the frame's colours are of a kind that FFmpeg does not convert.
    """
    name, matrix = frame.format.name, int(frame.colorspace)
    options = ["out_range=pc", _EXACT]
    if frame.format.is_rgb or frame.format.has_palette:
        pass
    elif matrix in _UNSAID or matrix == 0:
        large = frame.height >= 720 or frame.width >= 1280
        options.append(f"in_color_matrix={'bt709' if large else 'bt601'}")
    elif matrix in _MATRICES:
        options.append(f"in_color_matrix={_MATRICES[matrix]}")
    else:
        raise ValueError(f"its colours are of kind {matrix} in FFmpeg's count, which is not read")
    full = int(frame.color_range) == FULL or name.startswith("yuvj") or frame.format.is_rgb
    options.append(f"in_range={'pc' if full else 'tv'}")
    return _graph(
        {
            "width": frame.width,
            "height": frame.height,
            "format": name,
            "time_base": frame.time_base or Fraction(1, 1000),
        },
        ("scale", ":".join(options)),
        ("format", "rgba" if alpha else "rgb24"),
    )


def palette(height: int, width: int, time_base: Fraction) -> Any:
    """A filter that gives each frame a palette of its own, so that no frame has to wait for the last."""
    import av

    graph: Any = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=time_base)
    split = graph.add("split")
    made = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    apply = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(apply, 0, 0)
    split.link_to(made, 1, 0)
    made.link_to(apply, 0, 1)
    apply.link_to(sink)
    graph.configure()
    return graph


def to_bgra(height: int, width: int, time_base: Fraction) -> Any:
    """A filter to the order of bytes that the WebP encoder takes."""
    source = {"width": width, "height": height, "format": "rgb24", "time_base": time_base}
    return _graph(source, ("format", "bgra"))


def _graph(source: dict[str, Any], *filters: tuple[str, str]) -> Any:
    """Filters one after the other."""
    import av

    graph: Any = av.filter.Graph()
    last = graph.add_buffer(**source)
    for name, options in filters:
        node = graph.add(name, options)
        last.link_to(node)
        last = node
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
