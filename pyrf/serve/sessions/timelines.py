"""The later prompts of a clip: checked against the server's limits, and placed at chunks."""

from __future__ import annotations

from pyrf.moments import parse_time
from pyrf.protocol import VideoRequest
from pyrf.serve.errors import ServeError
from pyrf.serve.models import ServedModel
from pyrf.streaming.change import Change
from pyrf.streaming.timeline import Switch, place

PROMPTS_LONG = 8
"""Prompts of the longest length that all later prompts of a clip may have together."""
MAX_NOTICES = 8
"""Sentences on a clip's prompts, which go into a header."""


def placed_timeline(model: ServedModel, request: VideoRequest, max_chars: int) -> dict[int, Change]:
    """The chunks at which a clip's prompts change.

    Args:
        max_chars: of one prompt.

    Raises:
        ServeError: 422 for a prompt that the model would not read, or a time that no chunk is for.
    """
    chars = sum(map(len, texts_of_timeline(request)))
    most = PROMPTS_LONG * max_chars
    if chars > most:
        message = f"the later prompts of a clip may have {most} characters in all, got {chars}"
        raise ServeError(422, "bad_timeline", f"{message}; shorten them")
    continues = model.start_of(request) == "still"
    switches = []
    for i, entry in enumerate(request.timeline):
        said = f"timeline[{i}]"
        prompt = model.check_prompt(entry.prompt)
        try:
            start = parse_time(entry.at) if isinstance(entry.at, str) else float(entry.at)
        except ValueError as error:
            raise ServeError(422, "bad_timeline", f"{said}: {error}") from None
        switches.append(Switch(f"{said} at {entry.at}", start, Change(prompt, entry.over, entry.recache)))
    try:
        return place(model.pipe.model, switches, continues=continues, num_frames=request.num_frames)
    except ValueError as error:
        raise ServeError(422, "bad_timeline", str(error)) from None


def texts_of_timeline(request: VideoRequest) -> list[str]:
    """All texts of a clip's later prompts."""
    return [
        text for e in request.timeline for text in ([e.prompt] if isinstance(e.prompt, str) else e.prompt)
    ]


def timeline_notices(model: ServedModel, request: VideoRequest) -> list[str]:
    """What the model has not learned of the later prompts, each sentence once. Slow for long ones."""
    return list(dict.fromkeys(told for entry in request.timeline for told in model.notices(entry.prompt)))
