"""What a stream holds while it runs, and how one stream or several make their next chunk."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import torch
from torch import Tensor

from pyrf.backends.base import OverlappedDecoder
from pyrf.backends.torch.joint import JointRollout
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.loop.finite import NotFiniteError
from pyrf.loop.inference import inference
from pyrf.loop.sampler import Call, ChunkLoop, Draw
from pyrf.streaming.blend import PromptRows
from pyrf.streaming.chunk import Chunk, Clock, Timing
from pyrf.streaming.model import StreamModel
from pyrf.streaming.prompts import PromptSource
from pyrf.streaming.restyle import SourceControl, SourceEndedError, SourceStart
from pyrf.streaming.start import Start


class ClosedError(Exception):
    """The streams were closed while a chunk was under way."""


class StreamState:
    """The memory of a running stream: cache, random state, decoder.

    Each chunk is a `begin`, the calls of `loop`, and an `end`; `advance` does all three.

    Args:
        model: shared by all streams.
        seeds: one per clip.
        size: height and width of a frame in pixels.
        prompts: where prompts come from.
        single: whether chunks have one clip alone, without an axis of clips.
        start: what every clip starts from; None: noise.
        source: what is said of frames that every clip restyles.
        closed: set when the stream is closed.

    Attributes:
        rollout: the stream on its backend.
        loop: its chunks of latents.
    """

    @inference()
    def __init__(
        self,
        model: StreamModel,
        seeds: Sequence[int],
        size: tuple[int, int],
        prompts: PromptSource,
        *,
        single: bool,
        start: Start | None,
        source: SourceControl,
        closed: Event,
    ) -> None:
        self.model, self.prompts, self.closed = model, prompts, closed
        self._single, self._index = single, 0
        latents, batch = model.latent_size(*size), len(seeds)
        self._decoder = model.backend.decoder(batch, latents)
        self._overlapped = isinstance(self._decoder, OverlappedDecoder)
        # A stage's end is waited for to time it, but not where stages run beside each other.
        self._clock = Clock(None if self._overlapped else model.device)
        first = prompts.at(0)
        if first is None:
            raise ValueError("the source of prompts has none for chunk 0")
        self._text = PromptRows(model.text_encoder.encode, first)
        with model.adapters.chunk():
            self._weights = model.adapters.version
            self.rollout = model.backend.open(batch, latents, self._text.rows)
            self._source = SourceStart(
                model, source, self.rollout.device, begins=start is None or not start.continues
            )
            self.loop = self.rollout.loop(seeds, self._source)
            if start is not None:
                self._take(start)
        self._prompt_s = self._source_s = self._denoise_s = self._clean_s = 0.0
        # Latents of the next chunk, where it was begun while the last one was decoded.
        self._ahead: Tensor | None = None

    def _take(self, start: Start) -> None:
        """Take the frames of a start as the past of every clip, or as its first latent frame."""
        frames = torch.tensor(start.frames, dtype=torch.uint8, device=self.model.device)
        latents = self.model.codec.encode(frames[None])
        latents = latents.expand(self.rollout.batch, -1, -1, -1, -1)
        if not start.continues:
            self.loop.hold(latents)
            return
        self.loop.prefill(latents)
        self._decoder.decode(latents)  # only for its memory: the caller has these frames

    def begin(self) -> None:
        """Begin the next chunk with the source's frames, which may have to be waited for.

        Raises:
            SourceEndedError: when there is no further chunk.
        """
        if self._index:
            self._clock.restart()
            self._prompt_s = 0.0
        else:  # since the stream was opened
            self._prompt_s = self._clock.lap()
        if self._ahead is None:
            self.loop.begin()
        self._source_s = self._clock.lap()

    def put_in_force(self) -> None:
        """Let the next chunk see weights that have changed, and a new prompt or the next step towards it."""
        weights_changed = self._follow_weights()
        if self._index == 0:  # opening the stream has put its first prompt in force
            return
        step = self._text.advance(self.prompts.at(self._index))
        if step is not None:
            self.rollout.set_prompt(step.rows, step.recache)
        elif not weights_changed:
            return
        if self._ahead is not None:
            self._ahead = self.loop.redo_chunk(self.watch)
        self._prompt_s = self._clock.lap()

    def _follow_weights(self) -> bool:
        """Whether adapters have changed the weights since the last chunk; then what was kept is made anew."""
        if self._weights == self.model.adapters.version:
            return False
        self._weights = self.model.adapters.version
        self.rollout.weights_changed()
        return True

    def watch(self, call: Call) -> None:
        """Give the chunk up when the stream is closed, and time its calls (a `pyrf.loop.sampler.Watch`)."""
        if self.closed.is_set():
            raise ClosedError
        self.reach(call)

    def reach(self, call: Call) -> None:
        """A call of the chunk comes next."""
        if call == "clean":
            self._denoise_s = self._clock.lap()

    def next_latents(self) -> Tensor:
        """Compute the chunk that was begun: latents [B, F, C, H, W]."""
        latents, self._ahead = self._ahead, None
        return self.loop.next_chunk(self.watch) if latents is None else latents

    def calls_done(self) -> None:
        """The chunk's calls are done."""
        self._clean_s = self._clock.lap()

    def end(self, latents: Tensor) -> Chunk:
        """Decode the latents of the chunk that was begun.

        Raises:
            NotFiniteError: when a latent is not finite; nothing of the chunk is to be shown.
        """
        self._clock.lap()  # others that were computed with it have been decoded meanwhile
        is_finite = latents.isfinite().all()  # read when the frames are there: a GPU is not waited for twice
        strength = self._source.strength  # before the next chunk begins
        frames = self._decode(latents).cpu().numpy()
        if not is_finite:
            raise NotFiniteError(
                f"chunk {self._index} of the stream is infinite or not a number, so the stream has ended; "
                "begin another, in float32 if this was a smaller dtype, or look at the model's weights"
            )
        decode_s, total_s = self._clock.lap(), self._clock.total()
        if self._overlapped:
            timing = Timing(self._prompt_s, None, None, None, total_s, self._source_s)
        else:
            own = self._denoise_s, self._clean_s, decode_s
            timing = Timing(self._prompt_s, *own, total_s, self._source_s)
        chunk = Chunk(
            frames=frames[0] if self._single else frames,
            index=self._index,
            prompt=self._text.prompts[0] if self._single else self._text.prompts,
            timing=timing,
            progress=self._text.progress,
            strength=strength,
        )
        self._index += 1
        return chunk

    def _decode(self, latents: Tensor) -> Tensor:
        """Latents to frames; where the decoder can, the next chunk is begun meanwhile.

        Not with a source: its next frames may still have to come.
        """
        if not isinstance(self._decoder, OverlappedDecoder) or self._source.has_source:
            return self._decoder.decode(latents)
        frames = self._decoder.begin(latents)
        self._ahead = self.loop.next_chunk(self.watch)
        return frames.result()


@inference()
def advance(states: Sequence[StreamState]) -> list[Chunk | NotFiniteError | None]:
    """The next chunk of each stream, the network's calls of all of them in one batch.

    A stream whose latents are not finite has an error in the place of its chunk, and cannot go on. One that
    has ended with its source has None.

    Args:
        states: of one model, with frames of one size; several of them on the torch backend.

    Raises:
        ClosedError: when all of the streams were closed meanwhile.
    """
    outcomes: dict[StreamState, Chunk | NotFiniteError | None] = {}
    for state in states:
        try:
            state.begin()
        except SourceEndedError:
            outcomes[state] = None
    running = [state for state in states if state not in outcomes]
    if running:
        with states[0].model.adapters.chunk():
            outcomes |= _advance(running)
    return [outcomes[state] for state in states]


def _advance(states: Sequence[StreamState]) -> dict[StreamState, Chunk | NotFiniteError]:
    """`advance` of streams whose chunks have begun, with weights that stay."""
    outcomes: dict[StreamState, Chunk | NotFiniteError] = {}
    for state in states:
        try:
            state.put_in_force()
        except NotFiniteError as error:
            outcomes[state] = error
    running = [state for state in states if state not in outcomes]
    if running:
        latents = _next_latents(running)
        for state in running:
            state.calls_done()
        for state in running:
            try:
                outcomes[state] = state.end(latents[state])
            except NotFiniteError as error:
                outcomes[state] = error
    return outcomes


def _next_latents(states: Sequence[StreamState]) -> dict[StreamState, Tensor]:
    """The latents of the next chunks; those that take other steps, or hold frames, are computed apart."""
    if len(states) == 1:
        return {states[0]: states[0].next_latents()}
    alike: dict[tuple[float, ...], list[StreamState]] = {}
    for state in states:
        if state.loop.to_hold is None:
            alike.setdefault(tuple(state.loop.begin().sampler.timesteps), []).append(state)
    apart = [[state] for state in states if state.loop.to_hold is not None]
    latents: dict[StreamState, Tensor] = {}
    for group in (*alike.values(), *apart):
        if len(group) == 1:
            latents[group[0]] = group[0].next_latents()
        else:
            latents.update(zip(group, _joint_latents(group)))
    return latents


def _joint_latents(states: Sequence[StreamState]) -> list[Tensor]:
    """`_next_latents` of several streams whose chunks take the same steps."""
    rollouts = [state.rollout for state in states if isinstance(state.rollout, TorchRollout)]
    started = [state.loop.begin() for state in states]

    def start(draw: Draw) -> tuple[Tensor, float]:
        return torch.cat([one.latents for one in started]), started[0].level

    def draw() -> Tensor:
        return torch.cat([state.loop.draw() for state in states])

    def watch(call: Call) -> None:
        if all(state.closed.is_set() for state in states):
            raise ClosedError
        for state in states:
            state.reach(call)

    past = states[0].loop.chunks
    loop = ChunkLoop(JointRollout(rollouts), states[0].model.stream_config, draw, start, past)
    latents = loop.next_chunk(watch).split([rollout.batch for rollout in rollouts])
    for state in states:
        state.loop.pass_on()
    return list(latents)
