"""Pictures come as their files mean them, whatever their numbers, colours and transparency are."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pyrf.video.levels import as_levels
from pyrf.video.reader import read_frames
from pyrf.video.writer import Frames

H, W = 64, 96
RAMP: NDArray[Any] = np.linspace(0, 65535, H * W).reshape(H, W)
LEVELS = np.rint(RAMP / 257).astype(int)
WHITE = (255, 255, 255)


def read(path: Path) -> Frames:
    frames = read_frames(path, height=H, width=W, fps=16)
    assert frames.shape == (1, H, W, 3)
    return frames[0]


def png(
    path: Path,
    depth: int,
    kind: int,
    rows: bytes,
    *chunks: tuple[bytes, bytes],
    size: tuple[int, int] = (W, H),
) -> Path:
    """A PNG written by hand, of kinds that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def rows_of(pixels: NDArray[Any]) -> bytes:
    data = pixels.reshape(H, -1).astype(">u2")
    return b"".join(b"\0" + row.tobytes() for row in data)


DEEP: dict[str, Any] = {
    "grey16.png": RAMP.astype(np.uint16),
    "grey16.tif": RAMP.astype(np.uint16),
    "big-endian.tif": RAMP.astype(">u2"),
    "float.tif": (RAMP / 65535).astype(np.float32),
    "integer.tif": RAMP.astype(np.int32),
    "grey8.png": (RAMP / 257).astype(np.uint8),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_are_scaled(tmp_path: Path, name: str) -> None:
    Image.fromarray(DEEP[name]).save(tmp_path / name)
    found = read(tmp_path / name)
    assert np.abs(found - LEVELS[..., None]).max() <= 1
    assert (found[..., 0] == found[..., 1]).all()


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2), (0, 1)])
def test_pngs_of_16_bits(tmp_path: Path, kind: int, channels: int) -> None:
    pixels = np.repeat(RAMP[..., None], channels, axis=-1)
    if channels in (2, 4):
        pixels[..., -1] = 65535
    found = read(png(tmp_path / "a.png", 16, kind, rows_of(pixels)))
    assert np.abs(found - LEVELS[..., None]).max() <= 1


def test_a_16_bit_grey_that_is_transparent(tmp_path: Path) -> None:
    pixels = np.full((H, W), 20000)
    pixels[:, : W // 2] = 500
    found = read(png(tmp_path / "a.png", 16, 0, rows_of(pixels), (b"tRNS", struct.pack(">H", 500))))
    assert (found[:, : W // 2 - 4] == 255).all()
    assert np.abs(found[:, W // 2 + 4 :].astype(int) - round(20000 / 257)).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ((RAMP / 257).astype(np.float32), r"must lie in 0\.\.1 where it is floats, got 0\.\.255; divide"),
        (np.full((H, W), -1, np.float32), "must lie in 0..1"),
        (np.full((H, W), np.nan, np.float32), "must lie in 0..1"),
        (
            (RAMP / 257).astype(np.int32),
            r"32-bit integers of 0\.\.255, and nothing says which of them is white",
        ),
        ((RAMP * 9).astype(np.int32), "32-bit integers"),
        (np.full((H, W), -5, np.int32), "32-bit integers"),
    ],
)
def test_numbers_of_unknown_meaning_are_refused(tmp_path: Path, pixels: NDArray[Any], message: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(LEVELS.astype(np.uint8)).convert("RGB")
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        made = ImageCms.profileToProfile(picture, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
        assert made is not None
        picture = made
    else:
        picture = picture.convert("L" if mode == "P" else "RGB").convert(mode)
    name = {"CMYK": "a.tif", "LAB": "a.tif", "YCbCr": "a.jpg"}.get(mode, "a.png")
    picture.save(tmp_path / name)
    found = read(tmp_path / name).astype(int)
    assert abs(found.mean() - 127.5) < 3
    if mode != "1":
        assert np.abs(found - LEVELS[..., None]).max() <= 6


def disc() -> NDArray[np.bool_]:
    y, x = np.mgrid[:H, :W]
    return np.asarray((x - W // 2) ** 2 + (y - H // 2) ** 2 < 400)


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 0, 255)])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_white_shows_through(tmp_path: Path, hidden: tuple[int, int, int], name: str) -> None:
    """Whatever colour stands in transparent pixels."""
    pixels = np.zeros((H, W, 4), np.uint8)
    pixels[..., :3] = hidden
    pixels[disc()] = (220, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / name, lossless=True)
    found = read(tmp_path / name)
    assert tuple(found[0, 0]) == WHITE
    assert tuple(found[H // 2, W // 2]) == (220, 0, 0)


def test_half_transparent_pixels_are_mixed(tmp_path: Path) -> None:
    pixels = np.zeros((H, W, 4), np.uint8)
    pixels[:] = (200, 0, 100, 128)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mixed = [round(level * 128 / 255 + 255 * 127 / 255) for level in (200, 0, 100)]
    assert np.abs(read(tmp_path / "a.png").astype(int) - mixed).max() <= 1


def test_transparency_of_grey_palettes_and_colours(tmp_path: Path) -> None:
    grey = np.zeros((H, W, 2), np.uint8)
    grey[disc()] = (200, 255)
    Image.fromarray(grey).save(tmp_path / "la.png")
    indices = Image.fromarray(disc().astype(np.uint8)).convert("P")
    indices.putpalette([0, 255, 0, 220, 0, 0])
    indices.save(tmp_path / "p.png", transparency=0)
    indices.save(tmp_path / "bytes.png", transparency=b"\0\xff")
    Image.fromarray(np.where(disc()[..., None], 200, (9, 9, 9)).astype(np.uint8)).save(
        tmp_path / "rgb.png", transparency=(9, 9, 9)
    )
    for name in ("la.png", "p.png", "bytes.png", "rgb.png"):
        found = read(tmp_path / name)
        assert tuple(found[0, 0]) == WHITE, name
        assert tuple(found[H // 2, W // 2]) in ((200, 200, 200), (220, 0, 0)), name


def test_profiles_are_converted(tmp_path: Path) -> None:
    """The oracle is LittleCMS: a profile with red and green exchanged shows them exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = bytearray(profile)
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    swapped = (
        bytes(data).replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be")).replace(b"sRGB", b"odd!")
    )
    pixels = np.zeros((H, W, 3), np.uint8)
    pixels[:] = (200, 50, 50)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=swapped)
    Image.fromarray(pixels).save(tmp_path / "b.png", icc_profile=profile)
    assert np.abs(read(tmp_path / "a.png").astype(int) - (50, 200, 50)).max() <= 2
    assert (read(tmp_path / "b.png") == pixels).all()


def test_a_profile_and_transparency(tmp_path: Path) -> None:
    pixels = np.zeros((H, W, 4), np.uint8)
    pixels[disc()] = (220, 10, 10, 255)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    assert tuple(read(tmp_path / "a.png")[0, 0]) == WHITE


def test_a_damaged_profile_warns(tmp_path: Path) -> None:
    pixels = np.full((H, W, 3), 77, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=b"nonsense")
    with pytest.warns(UserWarning, match=r"a\.png: its colour profile cannot be used .*; colours are sRGB"):
        assert (read(tmp_path / "a.png") == 77).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animations_are_videos(tmp_path: Path, name: str) -> None:
    """Of frames of 250 and 500 ms: at 8 frames per second 2 and 4 of the result."""
    pictures = [Image.new("RGB", (W, H), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    pictures[0].save(
        tmp_path / name, save_all=True, append_images=pictures[1:], duration=[250, 500, 250], lossless=True
    )
    found = read_frames(tmp_path / name, height=H, width=W, fps=8)
    assert found.argmax(axis=-1)[:, H // 2, W // 2].tolist() == [0, 0, 1, 1, 1, 1, 2, 2]


def test_transparent_animations_show_white(tmp_path: Path) -> None:
    clear = np.zeros((H, W, 4), np.uint8)
    red = clear.copy()
    red[disc()] = (255, 0, 0, 255)
    frames = [Image.fromarray(pixels) for pixels in (red, clear)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=500, lossless=True)
    found = read_frames(tmp_path / "a.webp", height=H, width=W, fps=2)
    assert [tuple(frame[H // 2, W // 2]) for frame in found] == [(255, 0, 0), WHITE]


def test_a_gif_without_times_is_shown_as_browsers_do(tmp_path: Path) -> None:
    pictures = [Image.new("P", (W, H), colour) for colour in (0, 1, 2)]
    for picture in pictures:
        picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=0)
    assert len(read_frames(tmp_path / "a.gif", height=H, width=W, fps=10)) == 3


@pytest.mark.parametrize(("milliseconds", "shown_ms"), [(10, 100), (20, 20), (30, 30)])
def test_a_gif_may_show_fifty_frames_per_second_and_no_more(
    tmp_path: Path, milliseconds: int, shown_ms: int
) -> None:
    """Browsers take two hundredths of a second as they are, and show less as ten."""
    pictures = [Image.new("RGB", (W, H), (8 * i, 0, 0)) for i in range(30)]
    pictures[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0
    )
    assert len(read_frames(tmp_path / "a.gif", height=H, width=W, fps=50)) == 30 * shown_ms // 20


def test_pages_of_a_document_are_no_video(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (W, H), colour) for colour in ("#ff0000", "#00ff00")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert tuple(read(tmp_path / "a.tif")[0, 0]) == (255, 0, 0)


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation(tmp_path: Path, turn: int) -> None:
    """What EXIF calls 1..8, in a picture whose top left corner is bright when it is upright."""
    upright = np.zeros((H, W, 3), np.uint8)
    upright[: H // 2, : W // 2] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), upright)


def test_a_picture_of_too_many_pixels(tmp_path: Path) -> None:
    png(tmp_path / "a.png", 8, 2, b"", size=(60000, 60000))
    with pytest.raises(ValueError, match=r"cannot read .*a\.png: it has too many pixels"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([0, 7, 255], np.uint8), [0, 7, 255]),
        (np.array([0, 128, 257, 65535], np.uint16), [0, 0, 1, 255]),
        (np.array([0, 0.5, 1.0], np.float32), [0, 128, 255]),
        (np.array([-0.001, 1.001], np.float64), [0, 255]),
        (np.array([0, 1], np.float16), [0, 255]),
        (np.array([False, True]), [0, 255]),
    ],
)
def test_levels(given: NDArray[Any], expected: list[int]) -> None:
    found = as_levels(given, "image")
    assert found.dtype == np.uint8
    assert found.tolist() == expected


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint32, np.int8, np.complex64])
def test_arrays_of_unknown_meaning_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"image must be uint8 0\.\.255, uint16 0\.\.65535 or floats 0\.\.1"):
        as_levels(np.zeros(3, kind), "image")


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "it is a folder; give a picture or a video in it"),
        (tmp_path / "none.png", "there is no such file"),
        ("https://host//a.png", "https://host//a.png: it is an address; fetch what is there"),
    ):
        with pytest.raises(ValueError, match=message):
            read_frames(path, height=H, width=W, fps=16)
