"""Binary frame messages: their bytes, and that what was packed is unpacked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.protocol import FrameHeader, pack_frame, unpack_frame

counts = st.integers(0, 2**53)
seconds = st.floats(0, 1e12)
headers = st.fixed_dictionaries(
    {
        "chunk": counts,
        "frame": counts,
        "pts_s": seconds,
        "chunk_frames": counts,
        "prompt_id": counts,
        "made_at": seconds,
        "compute_ms": seconds,
        "dropped": counts,
        "prompt_progress": st.floats(0, 1),
        "width": counts,
        "height": counts,
        "format": st.sampled_from(["jpeg", "raw"]),
    }
)
GOLDEN = (
    b"\x00\x00\x00\xb8"
    b'{"chunk":3,"frame":33,"pts_s":2.0625,"chunk_frames":12,"prompt_id":1,"made_at":1795653033.5,'
    b'"compute_ms":57.25,"dropped":0,"prompt_progress":0.5,"width":96,"height":64,"format":"jpeg"}'
    b"pixels"
)


def test_the_bytes_of_a_frame() -> None:
    header, pixels = unpack_frame(GOLDEN)
    assert bytes(pixels) == b"pixels"
    assert (header.chunk, header.frame, header.pts_s, header.format) == (3, 33, 2.0625, "jpeg")
    assert pack_frame(header, b"pixels") == GOLDEN


def test_a_server_that_knows_no_transitions_shows_prompts_wholly() -> None:
    old = GOLDEN.replace(b'"prompt_progress":0.5,', b"").replace(b"\xb8", b"\xa2")
    assert unpack_frame(old)[0].prompt_progress == 1


@given(headers, st.binary(max_size=100))
def test_what_is_packed_is_unpacked(fields: dict[str, object], pixels: bytes) -> None:
    header = FrameHeader.model_validate(fields)
    message = pack_frame(header, pixels)
    length = int.from_bytes(message[:4], "big")
    sent = json.loads(message[4 : 4 + length])
    assert sent == fields
    unpacked, rest = unpack_frame(message)
    assert unpacked == header
    assert bytes(rest) == pixels


@given(headers, st.data())
def test_a_header_that_is_cut_short_is_refused(fields: dict[str, object], data: st.DataObject) -> None:
    message = pack_frame(FrameHeader.model_validate(fields), b"")
    cut = data.draw(st.integers(0, len(message) - 1))
    with pytest.raises(ValueError, match="a frame message"):
        unpack_frame(message[:cut])


@given(headers, st.text())
def test_a_later_server_may_say_more(fields: dict[str, object], more: str) -> None:
    known = FrameHeader.model_validate(fields)
    assert FrameHeader.model_validate(fields | {"new": more}) == known
