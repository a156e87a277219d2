"""What is judged, and what each rater is shown: the same clip of two methods, sides and order at random."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyrf.checks import check_whole

QUESTIONS = {
    "consistency": "Which video is more consistent from its beginning to its end?",
    "motion": "Which video moves more, and more naturally?",
    "overall": "Which video is better overall?",
}
CHECK_TEXT = "This is a check of attention: please choose {side}."
TRIALS_PER_CHECK = 10
MAX_METHODS = 20
MAX_TRIALS = 1000
MAX_QUESTIONS = 10
MAX_TEXT = 200
"""Characters of a question."""


class Pair(NamedTuple):
    """A clip, named as its file, of two methods."""

    item: str
    one: str
    other: str


class Trial(NamedTuple):
    """What a rater sees: a clip of method `a` on the left or above, that of `b` beside it.

    Attributes:
        check: "a" or "b" in a check of attention, which asks for that side; else empty.
    """

    item: str
    a: str
    b: str
    check: str = ""


@dataclass(frozen=True)
class Study:
    """What is judged.

    Attributes:
        folders: method -> folder of its clips.
        items: names of the files that all of them have.
        questions: name -> text.
        trials: for each rater, checks of attention not counted.
        seed: of all that is random.
    """

    folders: dict[str, str]
    items: tuple[str, ...]
    questions: dict[str, str]
    trials: int
    seed: int

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.folders)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, which `from_dict` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Study:
        """From JSON values of `to_dict`."""
        return cls(**{**values, "items": tuple(values["items"])})

    def path(self, trial: Trial, side: str) -> Path:
        """The clip of side "a" or "b"."""
        return Path(self.folders[trial.a if side == "a" else trial.b], trial.item)

    def plan(self, rater: int) -> list[Trial]:
        """What the rater of a number, from 0, is shown in turn.

        All raters share half of their trials, so that they can be compared; the other half goes around what
        is left. Every tenth trial is followed by a check of attention.
        """
        pairs = self._pairs()
        core = pairs[: self.trials if self.trials >= len(pairs) else self.trials // 2]
        rest = pairs[len(core) :]
        own = self.trials - len(core)
        start = rater * own
        shown = core + [rest[(start + i) % len(rest)] for i in range(own if rest else 0)]
        digest = hashlib.sha256(f"{self.seed} rater {rater}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        trials = []
        for number, index in enumerate(rng.permutation(len(shown)), start=1):
            trials.append(_sides(shown[index], rng))
            if number % TRIALS_PER_CHECK == 0 or number == len(shown) < TRIALS_PER_CHECK:
                check = _sides(shown[int(rng.integers(len(shown)))], rng)
                trials.append(check._replace(check=str(rng.choice(["a", "b"]))))
        return trials

    def _pairs(self) -> list[Pair]:
        """All pairs, in an order in which any beginning has each two methods about equally often."""
        rng = np.random.default_rng(self.seed)
        items = [list(rng.permutation(self.items)) for _ in combinations(self.methods, 2)]
        kinds = list(combinations(self.methods, 2))
        return [
            Pair(str(items[k][i]), *kinds[k])
            for i in range(len(self.items))
            for k in rng.permutation(len(kinds))
        ]


def _sides(pair: Pair, rng: np.random.Generator) -> Trial:
    one, other = (pair.one, pair.other) if rng.integers(2) else (pair.other, pair.one)
    return Trial(pair.item, one, other)


def make_study(folders: Sequence[Path], questions: Sequence[str], trials: int, seed: int) -> Study:
    """A study of folders that hold clips of the same names.

    Args:
        questions: as "name=text"; by default QUESTIONS.

    Raises:
        ValueError: when there are fewer than two folders, two have one name, or they share no clip; for a
            question of another form.
    """
    check_whole("--trials", trials, most=MAX_TRIALS)
    check_whole("--seed", seed, 0)
    if not 2 <= len(folders) <= MAX_METHODS:
        raise ValueError(f"two folders of clips are compared at least, and {MAX_METHODS} at most")
    named: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder")
        name = folder.resolve().name
        if name in named:
            raise ValueError(f"two folders are called {name}; rename one")
        named[name] = str(folder.resolve())
    items = sorted(set.intersection(*({path.name for path in Path(f).glob("*.mp4")} for f in named.values())))
    if not items:
        raise ValueError(f"{', '.join(map(str, folders))} have no .mp4 files of the same names")
    asked = dict(_question(text) for text in questions) if questions else dict(QUESTIONS)
    if len(asked) > MAX_QUESTIONS:
        raise ValueError(f"{len(asked)} questions are more than {MAX_QUESTIONS}")
    pairs = len(items) * len(named) * (len(named) - 1) // 2
    return Study(named, tuple(items), asked, min(trials, pairs), seed)


def _question(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(\w{1,40})=(\S.*)", text)
    if found is None or len(text) > MAX_TEXT:
        raise ValueError(f"--question must be NAME=TEXT of {MAX_TEXT} characters at most, got {text!r:.80}")
    return found[1], found[2]
