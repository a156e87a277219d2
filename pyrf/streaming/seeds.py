"""Seeds of a stream's clips."""

from __future__ import annotations

from collections.abc import Sequence

from pyrf.checks import check_whole
from pyrf.config import MAX_SEED
from pyrf.printing import counted
from pyrf.streaming.change import Prompt
from pyrf.streaming.mix import is_one
from pyrf.streaming.prompts import as_prompts


def as_seeds(seed: int | Sequence[int], prompt: Prompt) -> list[int]:
    """A seed for each prompt; a single seed counts up over a list of prompts.

    Raises:
        ValueError: when a seed is no whole number of 0..MAX_SEED, or their number is wrong.
    """
    count = len(as_prompts(prompt))
    if isinstance(seed, Sequence) and not isinstance(seed, str) and not is_one(prompt):
        if len(seed) != count:
            raise ValueError(
                f"seed must be one number, or one for each of {counted(count, 'prompt')}, got {len(seed)}"
            )
        seeds = [check_whole("seed", value, least=None, most=None) for value in seed]
    else:
        first = check_whole("seed", seed, least=None, most=None)
        seeds = [first + i for i in range(count)]
    for value in seeds:
        if not 0 <= value <= MAX_SEED:
            raise ValueError(f"seed must lie in 0..{MAX_SEED}, got {value}")
    return seeds
