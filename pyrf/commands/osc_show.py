"""What `pyrf osc` shows: a stream of this process or a session of a server, frame by frame, as OSC says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from pyrf import printing
from pyrf.commands.notices import tell_notices

if TYPE_CHECKING:
    from pyrf.client import Client
    from pyrf.integrations.osc import OscListener
    from pyrf.pipeline import StreamingPipeline
    from pyrf.video.writer import Frames, Sink

STEER_S = 0.25
"""Seconds between two changes: a server takes a few of them per second."""


class Show(Protocol):
    """A stream under way, which a `Steering` changes."""

    def set_prompt(self, prompt: str, *, over: float = 0.0) -> object:
        """Change the prompt; a ValueError says what is wrong with it."""
        ...

    def set_adapters(self, strengths: Mapping[str, float]) -> object:
        """Change strengths of adapters; a ValueError says what is wrong with them."""
        ...

    def pause(self, paused: bool) -> None:
        """Make no frames, or go on."""
        ...

    def frames(self) -> Frames | None:
        """The next ones, uint8 [T, H, W, 3]; None at the end."""
        ...

    def close(self) -> None:
        """End it."""
        ...


Begin = Callable[[str, int], Show]
"""Begins a show from a prompt and a seed."""


def perform(begin: Begin, prompt: str, seed: int, osc: OscListener, sink: Sink | None) -> None:
    """Show until OSC says stop, or the show ends.

    Args:
        sink: where frames go; None: nowhere, others watch.

    Raises:
        ValueError: when frames cannot be written, or the session is lost.
    """
    paused = False
    while True:
        with closing(begin(prompt, seed)) as show:
            if paused:
                show.pause(True)
            steered = time.monotonic()
            while True:
                if paused:
                    osc.wait()
                    time.sleep(max(0.0, steered + STEER_S - time.monotonic()))
                if paused or time.monotonic() >= steered + STEER_S:
                    steered = time.monotonic()
                    asked = osc.steer(show)
                    if asked.stop:
                        return
                    prompt = prompt if asked.prompt is None else asked.prompt[0]
                    if asked.paused not in (None, paused):
                        paused = bool(asked.paused)
                        show.pause(paused)
                    if asked.seed not in (None, seed):
                        seed = int(asked.seed or 0)
                        printing.tell(f"seed {seed}: the stream begins again")
                        break
                    if paused:
                        continue
                if (frames := show.frames()) is None:
                    return
                if sink is not None:
                    sink.write(frames)


class LocalShow:
    """A stream of this process."""

    def __init__(self, pipe: StreamingPipeline, prompt: str, seed: int) -> None:
        from pyrf.streaming.notices import told_elsewhere

        tell_notices(pipe, [prompt], None, None)
        with told_elsewhere():
            self._stream = pipe.stream(prompt, seed)
        self._pipe, self._due = pipe, time.monotonic()
        self.set_adapters, self.close = self._stream.set_adapters, self._stream.close

    def set_prompt(self, prompt: str, *, over: float = 0.0) -> None:
        """See `Show`."""
        from pyrf.streaming.notices import told_elsewhere

        with told_elsewhere():
            self._stream.set_prompt(prompt, over=over)
        tell_notices(self._pipe, [prompt], None, None)

    def pause(self, paused: bool) -> None:
        """Nothing is to be done: a stream computes a chunk when it is asked for one."""

    def frames(self) -> Frames | None:
        """The frames of the next chunk, once those before it have been shown."""
        if (chunk := next(self._stream, None)) is None:
            return None
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due, time.monotonic()) + len(chunk.frames) / self._pipe.fps
        return chunk.frames


class ServedShow:
    """A session of a server, whose frames are read here, so that it goes on."""

    def __init__(self, client: Client, prompt: str, seed: int, *, model: str | None, exact: bool) -> None:
        with refusals():
            self._session = client.create_session(
                prompt, seed=seed, model=model, format="raw" if exact else "jpeg"
            )
            printing.say(f"watch at {self._session.watch_url}")
        self._frames = iter(self._session)

    def set_prompt(self, prompt: str, *, over: float = 0.0) -> None:
        """See `Show`."""
        with refusals():
            for warning in self._session.set_prompt(prompt, over=over).warnings:
                printing.tell(f"warning: {warning}")

    def set_adapters(self, strengths: Mapping[str, float]) -> None:
        """See `Show`."""
        with refusals():
            self._session.set_adapters(strengths)

    def pause(self, paused: bool) -> None:
        """See `Show`."""
        with refusals():
            self._session.pause() if paused else self._session.resume()

    def frames(self) -> Frames | None:
        """The next frame alone."""
        with refusals():
            frame = next(self._frames, None)
        if frame is None and self._session.closing is not None:
            printing.tell(f"the server ended the session: {self._session.closing.reason}")
        return None if frame is None else frame.pixels[None]

    def close(self) -> None:
        """End the session; where the server is gone, it ends it itself."""
        from pyrf.client import ClientError

        with suppress(ClientError):
            self._session.close()


@contextmanager
def refusals() -> Iterator[None]:
    """The client's errors as those of a user."""
    from pyrf.client import ClientError

    try:
        yield
    except ClientError as error:
        raise ValueError(str(error)) from error
