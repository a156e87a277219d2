"""What votes say: strengths, win rates, agreement and effect sizes, for each question.

- Raters who failed more than a fifth of their checks of attention are left out.
- Win rates are of decided votes, with Wilson's interval and the exact binomial test against one half. The
  effect size is Cohen's h against one half.
- Strengths are those of Bradley and Terry by choix; "same" is half a win for each. Intervals are of a
  bootstrap over clips, and a difference whose interval holds 0 is a tie.
- Agreement is Krippendorff's alpha of who was preferred, over clips that several raters saw.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrf.evaluation.ab.votes import Vote
from pyrf.evaluation.bootstrap import bootstrap_distribution, percentile_interval
from pyrf.extras import needs

PASS = 0.8
"""Share of checks that a rater must pass."""
PRIOR = 0.01
"""Wins that each two methods are given before, so that strengths are finite where one never loses."""
RESAMPLES = 200
CONFIDENCE = 0.95


Unit = tuple[str, ...]
"""A clip and the two methods, in the order of their names."""


class WinRate(NamedTuple):
    """Two methods: how often `one` was preferred to `other` in `decided` votes, beside `same`.

    Attributes:
        rate, low, high: share and its interval; NaN without decided votes.
        p: of the exact test against one half.
        effect: Cohen's h: .2 is small, .5 medium, .8 large.
    """

    one: str
    other: str
    decided: int
    same: int
    rate: float
    low: float
    high: float
    p: float
    effect: float


class Strength(NamedTuple):
    """A method's log strength, of mean 0 over methods; the odds of two are exp of their difference."""

    method: str
    value: float
    low: float
    high: float


class Answer(NamedTuple):
    """What a question says.

    Attributes:
        strengths: the strongest first.
        ties: pairs of methods that cannot be told apart.
        agreement: Krippendorff's alpha; NaN where no clip was seen twice, or all votes are one.
    """

    strengths: tuple[Strength, ...]
    win_rates: tuple[WinRate, ...]
    ties: tuple[tuple[str, str], ...]
    agreement: float


class Results(NamedTuple):
    """Raters counted, numbers of those left out, and an answer per question."""

    raters: int
    left_out: tuple[int, ...]
    answers: dict[str, Answer]


def results(
    votes: Sequence[Vote], methods: Sequence[str], questions: Sequence[str], seed: int = 0
) -> Results:
    """Evaluate votes.

    Raises:
        ValueError: when an extra is missing, or no vote counts.
    """
    left_out = inattentive(votes)
    kept = [vote for vote in votes if vote.rater not in left_out and not vote.wanted]
    if not kept:
        raise ValueError("there are no votes that count")
    answers = {}
    for question in questions:
        own = [vote for vote in kept if vote.question == question]
        strengths, ties = _strengths(own, methods, np.random.default_rng(seed))
        rates = tuple(win_rate(own, one, other) for one, other in combinations(methods, 2))
        answers[question] = Answer(strengths, rates, ties, agreement(own))
    return Results(len({vote.rater for vote in kept}), left_out, answers)


def inattentive(votes: Sequence[Vote]) -> tuple[int, ...]:
    """Raters who failed too many checks of attention; a check is passed when each of its answers is right."""
    passed: dict[int, dict[int, bool]] = {}
    for vote in votes:
        if vote.wanted:
            trials = passed.setdefault(vote.rater, {})
            trials[vote.trial] = trials.get(vote.trial, True) and vote.choice == vote.wanted
    return tuple(sorted(r for r, trials in passed.items() if sum(trials.values()) < PASS * len(trials)))


def win_rate(votes: Sequence[Vote], one: str, other: str) -> WinRate:
    """How often `one` was preferred to `other`."""
    with needs("eval", "evaluating votes"):
        from scipy.stats import binomtest

    winners = [_winner(vote) for vote in votes if {vote.a, vote.b} == {one, other}]
    wins, losses = winners.count(one), winners.count(other)
    decided, same = wins + losses, len(winners) - wins - losses
    if not decided:
        return WinRate(one, other, 0, same, *[math.nan] * 5)
    test = binomtest(wins, decided)
    low, high = test.proportion_ci(CONFIDENCE, method="wilson")
    effect = 2 * math.asin(math.sqrt(wins / decided)) - math.pi / 2
    return WinRate(one, other, decided, same, wins / decided, low, high, test.pvalue, effect)


def agreement(votes: Sequence[Vote]) -> float:
    """Krippendorff's alpha of which method was preferred."""
    return alpha({(v.rater, _unit(v)): _place(v) for v in votes})


def alpha(ratings: Mapping[tuple[int, Unit], str]) -> float:
    """Krippendorff's alpha of nominal values by rater and unit; NaN where there is nothing to agree on."""
    with needs("eval", "evaluating votes"):
        import krippendorff

    raters, units = (sorted(set(found)) for found in zip(*ratings))
    values = sorted(set(ratings.values()))
    table = np.full((len(raters), len(units)), math.nan, dtype=np.float64)
    for (rater, unit), value in ratings.items():
        table[raters.index(rater), units.index(unit)] = values.index(value)
    if len(values) < 2 or ((~np.isnan(table)).sum(0) < 2).all():
        return math.nan
    return float(krippendorff.alpha(table, level_of_measurement="nominal"))


def _winner(vote: Vote) -> str:
    return {"a": vote.a, "b": vote.b, "same": ""}[vote.choice]


def _unit(vote: Vote) -> Unit:
    return (vote.item, *sorted((vote.a, vote.b)))


def _place(vote: Vote) -> str:
    """The preferred one: "first", "second" or "same" of the clip's two methods, whose order is drawn by lot.

    Names of methods would differ from clip to clip, and an order that favours one would make chance agree.
    """
    if vote.choice == "same":
        return vote.choice
    lot = hashlib.sha256(repr(_unit(vote)).encode()).digest()[0] % 2
    return ("first", "second")[lot ^ (_winner(vote) == max(vote.a, vote.b))]


def _strengths(
    votes: Sequence[Vote], methods: Sequence[str], rng: np.random.Generator
) -> tuple[tuple[Strength, ...], tuple[tuple[str, str], ...]]:
    """Strengths, and pairs that are ties."""
    by_item: dict[str, list[Vote]] = {}
    for vote in votes:
        by_item.setdefault(vote.item, []).append(vote)
    wins = np.stack([count_wins(group, methods) for group in by_item.values()])
    found = fit(wins.sum(0))
    resampled = bootstrap_distribution(lambda rows: fit(rows.sum(0)), wins, resamples=RESAMPLES, rng=rng)
    low, high = percentile_interval(resampled)
    strengths = [Strength(m, float(found[i]), float(low[i]), float(high[i])) for i, m in enumerate(methods)]
    ties = []
    for i, j in combinations(range(len(methods)), 2):
        least, most = percentile_interval(resampled[:, i] - resampled[:, j])
        if least <= 0 <= most:
            ties.append((methods[i], methods[j]))
    return tuple(sorted(strengths, key=lambda s: -s.value)), tuple(ties)


def fit(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log strengths of Bradley and Terry, of mean 0, from `count_wins`."""
    with needs("eval", "evaluating votes"):
        import choix

    found = choix.ilsr_pairwise_dense(wins, alpha=PRIOR, max_iter=1000)
    return np.asarray(found - found.mean(), dtype=np.float64)


def count_wins(votes: Sequence[Vote], methods: Sequence[str]) -> NDArray[np.float64]:
    """How often the method of a row was preferred to that of a column; "same" is half."""
    index = {method: i for i, method in enumerate(methods)}
    wins = np.zeros((len(methods), len(methods)), dtype=np.float64)
    for vote in votes:
        share = {"a": 1.0, "b": 0.0, "same": 0.5}[vote.choice]
        a, b = index[vote.a], index[vote.b]
        wins[a, b] += share
        wins[b, a] += 1 - share
    return wins


def told(found: Results) -> dict[str, Any]:
    """JSON values; NaN becomes None."""

    def clean(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if hasattr(value, "_asdict"):
            value = value._asdict()
        if isinstance(value, dict):
            return {name: clean(inner) for name, inner in value.items()}
        return [clean(inner) for inner in value] if isinstance(value, tuple | list) else value

    cleaned: dict[str, Any] = clean(found)
    return cleaned


def text(found: Results) -> str:
    """Lines for a person."""
    lines = [f"{found.raters} raters; {len(found.left_out)} left out for failed checks of attention"]
    for question, answer in found.answers.items():
        lines.append(f"{question} (agreement {_number(answer.agreement)})")
        for s in answer.strengths:
            lines.append(f"  {s.method:<24} {s.value:+.2f} [{s.low:+.2f}, {s.high:+.2f}]")
        for w in answer.win_rates:
            rate = f"{_number(w.rate)} [{_number(w.low)}, {_number(w.high)}] of {w.decided}, same {w.same}"
            tie = ", a tie" if (w.one, w.other) in answer.ties else ""
            test = f"p {_number(w.p)}, effect {_number(w.effect)}"
            lines.append(f"  {w.one} over {w.other}: {rate}, {test}{tie}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
