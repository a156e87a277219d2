"""What frames are encoded with: containers and codecs, how good and how large, and who computes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

EncoderChoice = Literal["auto", "software", "hardware"]
"""Whether a GPU encodes H.264: `auto` lets it do so for live outputs, where no one compares bytes."""

HARDWARE = ("h264_nvenc", "h264_videotoolbox")
"""H.264 encoders of GPUs and of Macs, in FFmpeg's words, in the order in which they are tried."""
MIN_BITRATE, MAX_BITRATE = 10_000, 1_000_000_000
BITS_PER_PIXEL = 0.8
"""Of the highest rate of a live stream: 5.1 Mbit/s at 480 x 832 and 16 frames per second."""
LOWEST, HIGHEST = 500_000, 12_000_000
"""Bits per second that every frame size may have at least, and at most."""
_MAX_CRF = {"h264": 51, "vp9": 63}
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}


@dataclass(frozen=True)
class Encoding:
    """A container, and the codec of its one stream, in FFmpeg's words."""

    container: str
    codec: str
    pixel_format: str
    codec_options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The codec, whoever encodes it."""
        return {"libx264": "h264", "libvpx-vp9": "vp9"}.get(self.codec, self.codec)


# Every player and browser shows yuv420p; its sizes are even.
MP4 = Encoding("mp4", "libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}, {"movflags": "+faststart"})
MOV = replace(MP4, container="mov", container_options={"movflags": "+faststart+use_metadata_tags"})
MKV = replace(MP4, container="matroska", container_options={})
WEBM = Encoding("webm", "libvpx-vp9", "yuv420p", {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4"})
# Plays while it still grows: a fragment per key frame, and no frame waits for a later one.
LIVE_MP4 = replace(
    MP4,
    codec_options={**MP4.codec_options, "tune": "zerolatency"},
    container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
)
GIF = Encoding("gif", "gif", "pal8")
APNG = Encoding("apng", "apng", "rgb24", container_options={"plays": "0"})
# The encoder makes its own yuv420p, in the colours that every reader of WebP expects.
WEBP = Encoding("webp", "libwebp_anim", "bgra", {"quality": "60"}, {"loop": "0"})


@dataclass(frozen=True)
class EncoderSettings:
    """How H.264 and VP9 are encoded; other formats have nothing to set.

    Attributes:
        crf: constant rate factor, lower is better: 0..51 of H.264 (18 by default), 0..63 of VP9 (24).
        bitrate: bits per second, in place of `crf`.
        encoder: software (libx264), hardware (NVENC or VideoToolbox), or auto: hardware where it is there and
            the output is live, else software. Files of `auto` have the same bytes on every machine.

    Raises:
        ValueError: when both are given, or one lies outside of what encoders take.
    """

    crf: float | None = None
    bitrate: int | None = None
    encoder: EncoderChoice = "auto"

    def __post_init__(self) -> None:
        if self.crf is not None and self.bitrate is not None:
            raise ValueError("crf fixes the quality and bitrate the size; give one of them")
        if self.crf is not None and not 0 <= self.crf <= max(_MAX_CRF.values()):
            raise ValueError(f"crf must lie in 0..51 (H.264) or 0..63 (VP9), got {self.crf:g}")
        if self.bitrate is not None and not MIN_BITRATE <= self.bitrate <= MAX_BITRATE:
            raise ValueError(
                f"bitrate must lie in {MIN_BITRATE:,}..{MAX_BITRATE:,} bits per second, got {self.bitrate:,}"
            )
        if self.encoder not in ("auto", "software", "hardware"):
            raise ValueError(f"encoder must be auto, software or hardware, got {self.encoder!r}")

    @staticmethod
    def refuse(settings: EncoderSettings | None, name: str) -> None:
        """Refuse settings where nothing can be set.

        Raises:
            ValueError: when there is one.
        """
        if settings is not None and settings != EncoderSettings():
            raise ValueError(f"crf, bitrate and encoder are of H.264 and VP9; {name} has none of them")

    def of(self, encoding: Encoding) -> Encoding:
        """An encoding with this quality or size.

        Raises:
            ValueError: when it has nothing to set, or another range.
        """
        most = _MAX_CRF.get(encoding.family)
        if most is None:
            self.refuse(self, encoding.container)
            return encoding
        if encoding.family != "h264" and self.encoder == "hardware":
            raise ValueError(f"hardware encodes H.264 here; for {encoding.container} leave it out")
        options = dict(encoding.codec_options)
        if self.crf is not None:
            if self.crf > most:
                raise ValueError(f"crf of {encoding.container} must lie in 0..{most}, got {self.crf:g}")
            options["crf"] = f"{self.crf:g}"
        elif self.bitrate is not None:
            options.pop("crf")
            options |= {"b": str(self.bitrate), "maxrate": str(self.bitrate), "bufsize": str(self.bitrate)}
        return replace(encoding, codec_options=options)

    def on_this_machine(
        self, encoding: Encoding, height: int, width: int, fps: float, *, is_live: bool
    ) -> Encoding:
        """The encoding with the encoder that computes it.

        Args:
            height, width: of a frame.
            is_live: whether `auto` may take hardware.

        Raises:
            ValueError: when hardware is wanted and there is none.
        """
        wanted = self.encoder == "hardware" or (self.encoder == "auto" and is_live)
        if encoding.family != "h264" or not wanted:
            return encoding
        for name in HARDWARE:
            made = _in_hardware(encoding, name, height, width, fps)
            if opens(made, height, width, fps):
                return made
        if self.encoder == "hardware":
            raise ValueError(
                f"no hardware encodes H.264 of {height} x {width} here ({', '.join(HARDWARE)} were tried); "
                "take auto or software"
            )
        return encoding


def parse_bitrate(text: str) -> int:
    """Bits per second of `800k`, `2.5M` or `2500000`.

    Raises:
        ValueError: for anything else.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([kM]?)", text, re.ASCII)
    if match is None:
        raise ValueError(f"a bitrate is a number of bits per second, as 800k or 2.5M, got {text!r}")
    return round(float(match[1]) * _UNITS[match[2]])


def highest_rate(height: int, width: int, fps: float) -> int:
    """Bits per second that a live video of this size is sent with at most."""
    return round(min(HIGHEST, max(LOWEST, BITS_PER_PIXEL * height * width * fps)))


def opens(encoding: Encoding, height: int, width: int, fps: float) -> bool:
    """Whether this machine has an encoding's encoder: FFmpeg may know one whose hardware is missing."""
    import av

    try:
        context: Any = av.CodecContext.create(encoding.codec, "w")
        context.height, context.width, context.pix_fmt = height, width, encoding.pixel_format
        context.time_base = 1 / Fraction(fps).limit_denominator(1001)
        context.options = dict(encoding.codec_options)
        context.open()
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError):
        return False
    return True


def _in_hardware(encoding: Encoding, name: str, height: int, width: int, fps: float) -> Encoding:
    """The same by an encoder of a GPU: NVENC has a constant quality, VideoToolbox only a rate."""
    given = encoding.codec_options
    options = {key: value for key, value in given.items() if key in ("b", "maxrate", "bufsize", "g")}
    if name == "h264_nvenc":
        options |= {"preset": "p4", "rc": "vbr"}
        if "crf" in given:
            options |= {"cq": given["crf"], "b": "0"}
        if given.get("tune") == "zerolatency":
            options |= {"tune": "ll", "delay": "0", "bf": "0"}
    else:
        options |= {"realtime": "1"} if given.get("tune") == "zerolatency" else {}
        options.setdefault("b", str(highest_rate(height, width, fps)))
    return replace(encoding, codec=name, codec_options=options)
