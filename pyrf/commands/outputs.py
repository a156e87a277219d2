"""Where `pyrf generate` puts a video, and how good or large it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from pyrf import printing

if TYPE_CHECKING:
    from pyrf.video.encoding import EncoderSettings
    from pyrf.video.metadata import Metadata
    from pyrf.video.provenance import Signer
    from pyrf.video.watermark import Watermark
    from pyrf.video.writer import Sink

STDOUT = "-"

OutputOption = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="A file (.mp4 .mov .mkv .webm .gif .webp .apng; .png and .jpg: contact sheets), x/ (a folder of "
        "PNGs), x.m3u8 (HLS), an address (rtmp:// rtmps:// srt:// udp://), camera:, window:, or - (stdout).",
    ),
]
RawOption = Annotated[
    bool, typer.Option("--raw", help="With -o -, write plain RGB, 8 bits per value, in place of MP4.")
]
CrfOption = Annotated[
    float | None,
    typer.Option("--crf", help="Quality of H.264 (0..51, else 18) or VP9 (0..63, else 24); lower is better."),
]
BitrateOption = Annotated[
    str | None, typer.Option("--bitrate", help="Bits per second, as 800k or 2.5M, in place of --crf.")
]
EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder",
        help="Of H.264: software, hardware (NVENC, VideoToolbox), or auto: hardware for live outputs.",
    ),
]
WatermarkOption = Annotated[
    str | None,
    typer.Option("--watermark", help="Text, or a .png, that every frame shows.", metavar="TEXT|FILE"),
]
SignOption = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--sign",
        help="Sign a finished MP4 (C2PA): certificate with its issuers, and its key; it says that a model "
        "made it.",
        metavar="CERT.pem KEY.pem",
    ),
]
SignDetailsOption = Annotated[
    bool,
    typer.Option("--sign-details", help="With --sign, sign seed, model and the prompt's SHA-256 too."),
]


@dataclass(frozen=True)
class Output:
    """A place for a video, that was looked at before the model is loaded.

    Attributes:
        target: a path or an address, or stdout as a binary file.
        shown: its name, for people.
        is_live: whether it leaves no file.
    """

    target: str | BinaryIO
    shown: str
    is_live: bool
    raw: bool
    encoder: EncoderSettings
    watermark: Watermark | None
    signer: Signer | None

    def open(self, fps: float, metadata: Metadata, keep_partial: bool) -> Sink:
        """Begin the video."""
        from pyrf.video.files import open_writer

        return open_writer(
            self.target,
            fps,
            metadata=metadata,
            keep_partial=keep_partial,
            encoder=self.encoder,
            watermark=self.watermark,
            signer=self.signer,
            raw=self.raw,
        )


@contextmanager
def opened(
    name: str,
    raw: bool,
    crf: float | None,
    bitrate: str | None,
    encoder: str,
    watermark: str | None = None,
    signer: Signer | None = None,
) -> Iterator[Output]:
    """Where a video goes.

    Raises:
        ValueError: when it cannot be written or sent, or has nothing of what is asked for.
    """
    from pyrf.video.encoding import EncoderSettings, parse_bitrate
    from pyrf.video.files import check_output, is_live
    from pyrf.video.network import shown

    mark = watermark_of(watermark)
    if raw and name != STDOUT:
        raise ValueError("--raw is for stdout (-o -); a file's name tells what it holds")
    settings = EncoderSettings(crf, None if bitrate is None else parse_bitrate(bitrate), encoder)  # type: ignore[arg-type]  # it looks
    if name == STDOUT:
        if raw:
            EncoderSettings.refuse(settings, "raw video")
        with printing.claimed_stdout() as binary:
            yield Output(binary, "stdout", True, raw, settings, mark, signer)
        return
    check_output(name, encoder=settings)
    told = shown(name) if "://" in name else name
    yield Output(name, told, is_live(name), False, settings, mark, signer)


def signer_of(
    files: tuple[str, str] | None, output: str, inputs: Sequence[str | None], *, details: bool
) -> Signer | None:
    """What `--sign` asks for.

    Args:
        inputs: what the video shows besides what the model makes.

    Raises:
        ValueError: when the output cannot be signed, or not with these files, or there are inputs: a manifest
            would have to name them.
    """
    if files is None:
        if details:
            raise ValueError("--sign-details goes with --sign")
        return None
    if any(one is not None for one in inputs):
        raise ValueError("--sign says that a model alone made the video; leave out --image and --source")
    from pyrf.video.files import check_signed
    from pyrf.video.provenance import Signer

    check_signed(output)
    return Signer(*files, details=details)


def watermark_of(mark: str | None) -> Watermark | None:
    """What `--watermark` asks for.

    Raises:
        ValueError: when it cannot be read or drawn.
    """
    if mark is None:
        return None
    from pyrf.video.watermark import Watermark

    return Watermark(mark)
