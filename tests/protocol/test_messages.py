"""JSON messages: their text, and that what one side writes the other reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pyrf.protocol import CLOSE_CODES, CONTROL, MESSAGE

CONTROLS = [
    '{"ref":1,"type":"prompt","prompt":"a blue square","recache":true,"over":0.0}',
    '{"type":"prompt","prompt":{"a blue square":0.25,"a star":3.0},"recache":false,"over":2.5}',
    '{"ref":"x","type":"pause"}',
    '{"type":"resume"}',
    '{"type":"close"}',
]
SESSION = (
    '{"id":"0123abcd","model":"tiny","state":"running","chunk":3,"prompt_id":1,"seed":7,"fps":16.0,"height":64,'
    '"width":96,"pace":"realtime","grace_s":30.0,"frames_made":33,"frames_dropped":0}'
)
MESSAGES = [
    f'{{"type":"hello","session":{SESSION},"format":"jpeg"}}',
    f'{{"type":"hello","session":{SESSION},"format":"video"}}',
    '{"ref":1,"type":"prompt","prompt_id":2,"chunk":4,"warnings":[]}',
    '{"type":"prompt","prompt_id":2,"chunk":4,"at_s":2.5,"full_chunk":6,"full_s":4.0,"warnings":[]}',
    '{"ref":"x","type":"state","state":"paused","chunk":4}',
    '{"ref":1,"type":"error","error":{"code":"rate_limited","message":"wait","retry_after":0.5}}',
    '{"type":"error","error":{"code":"invalid","message":"no"}}',
    '{"type":"closing","reason":"max_length","message":"the session reached its longest length"}',
    '{"chunk":3,"frame":33,"pts_s":2.0625,"chunk_frames":12,"prompt_id":1,"made_at":1795653033.5,'
    '"compute_ms":57.25,"dropped":0,"prompt_progress":0.5,"type":"chunk"}',
]


@pytest.mark.parametrize("text", CONTROLS)
def test_the_text_of_what_a_viewer_says(text: str) -> None:
    control = CONTROL.validate_json(text)
    assert control.model_dump_json(exclude_none=True) == text


@pytest.mark.parametrize("text", MESSAGES)
def test_the_text_of_what_a_server_says(text: str) -> None:
    message = MESSAGE.validate_json(text)
    assert message.model_dump_json(exclude_none=True) == text


@pytest.mark.parametrize("text", MESSAGES)
def test_a_later_server_may_say_more(text: str) -> None:
    more = json.dumps(json.loads(text) | {"new": 1})
    assert MESSAGE.validate_json(more) == MESSAGE.validate_json(text)


@pytest.mark.parametrize("text", CONTROLS)
def test_a_viewer_may_not_say_more(text: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        CONTROL.validate_json(json.dumps(json.loads(text) | {"new": 1}))


chunks = st.integers(0, 2**53)
refs = st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=64)
errors = st.fixed_dictionaries(
    {"code": st.text(), "message": st.text()}, optional={"retry_after": st.floats(0, 1e9)}
)
controls = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("prompt"), "prompt": st.text()}, optional={"recache": st.booleans(), "ref": refs}
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["pause", "resume", "close"])}, optional={"ref": refs}),
)
messages = st.one_of(
    st.fixed_dictionaries({"type": st.just("prompt"), "prompt_id": chunks, "chunk": chunks, "ref": refs}),
    st.fixed_dictionaries(
        {
            "type": st.just("state"),
            "state": st.sampled_from(["running", "paused", "detached", "ended"]),
            "chunk": chunks,
            "ref": refs,
        }
    ),
    st.fixed_dictionaries({"type": st.just("error"), "error": errors, "ref": refs}),
    st.fixed_dictionaries(
        {"type": st.just("closing"), "reason": st.sampled_from(sorted(CLOSE_CODES)), "message": st.text()}
    ),
)


@given(controls)
def test_controls_come_as_they_were_sent(fields: dict[str, Any]) -> None:
    control = CONTROL.validate_python(fields)
    assert {name: getattr(control, name) for name in fields} == fields
    assert CONTROL.validate_json(control.model_dump_json()) == control


@given(messages)
def test_messages_come_as_they_were_sent(fields: dict[str, Any]) -> None:
    message = MESSAGE.validate_python(fields)
    assert MESSAGE.validate_json(message.model_dump_json(exclude_none=True)) == message
