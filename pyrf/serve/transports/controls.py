"""Control messages of a viewer, the same over a WebSocket and a data channel."""

from __future__ import annotations

from pydantic import ValidationError

from pyrf.protocol import (
    CONTROL,
    AdaptersControl,
    AdaptersMessage,
    CloseControl,
    ErrorDetail,
    ErrorMessage,
    Message,
    PauseControl,
    PromptControl,
    PromptMessage,
    SourceControl,
    SourceMessage,
    StateMessage,
)
from pyrf.serve.errors import ServeError, first_problem
from pyrf.serve.sessions.registry import SessionRegistry
from pyrf.serve.sessions.session import Session


async def answer(registry: SessionRegistry, session: Session, text: str | bytes) -> Message | None:
    """Do what a control message asks.

    Returns:
        The reply; None after `close`, which is answered by the session's end.
    """
    try:
        control = CONTROL.validate_json(text)
    except ValidationError as error:
        try:
            registry.check_controls(session)  # nonsense counts as well
        except ServeError as refusal:
            return ErrorMessage(error=refusal.reply)
        detail = ErrorDetail(code="invalid", message=first_problem(error.errors(include_input=False)))
        return ErrorMessage(error=detail)
    try:
        if isinstance(control, PromptControl):
            reply = await registry.set_prompt(session, control.prompt, control.recache, control.over)
            return PromptMessage(ref=control.ref, **reply.model_dump())
        if isinstance(control, AdaptersControl):
            changed = registry.set_adapters(session, control.strengths)
            return AdaptersMessage(ref=control.ref, **changed.model_dump())
        if isinstance(control, SourceControl):
            strength, follow_motion = control.strength, control.follow_motion
            chunk = registry.set_source(session, strength, follow_motion)
            return SourceMessage(ref=control.ref, strength=strength, follow_motion=follow_motion, chunk=chunk)
        registry.check_controls(session)
    except ServeError as error:
        return ErrorMessage(ref=control.ref, error=error.reply)
    if isinstance(control, CloseControl):
        session.end("closed")
        return None
    if isinstance(control, PauseControl):
        session.pause()
    else:
        session.resume()
    return StateMessage(ref=control.ref, state=session.state, chunk=session.chunks_started)
