"""Which part of a sequence sees which: the parallel training forwards of a causal student."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """Tokens `queries` see the tokens of all `keys`, in order."""

    queries: slice
    keys: tuple[slice, ...]


def window_parts(chunks: int, tokens: int, window: int) -> tuple[Part, ...]:
    """Chunks of `tokens` tokens that see themselves and those before them, `window` chunks in all."""
    return tuple(
        Part(slice(i * tokens, (i + 1) * tokens), (slice(max(0, i + 1 - window) * tokens, (i + 1) * tokens),))
        for i in range(chunks)
    )


def teacher_forcing_parts(chunks: int, tokens: int) -> tuple[Part, ...]:
    """The sequence [clean; noisy], of which the last clean chunk is left out, as nothing sees it.

    Clean chunks see clean ones up to themselves; noisy chunks see themselves and the clean ones before them.
    """
    past = chunks - 1
    clean = window_parts(past, tokens, past)
    noisy = tuple(
        Part(own := slice((past + i) * tokens, (past + i + 1) * tokens), (slice(0, i * tokens), own))
        for i in range(chunks)
    )
    return (*clean, *noisy)
