"""The rate limit against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyrf.serve.sessions.rates import RateLimit


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=60),
    st.floats(0.2, 5),
    st.integers(1, 5),
)
def test_no_more_than_the_rate_passes(events: list[tuple[str, float]], rate: float, burst: int) -> None:
    now = 0.0
    limit = RateLimit(rate, burst, clock=lambda: now)
    tokens: dict[str, tuple[float, float]] = {}  # key -> tokens left, when
    for key, gap in events:
        now += gap
        left, before = tokens.get(key, (float(burst), now))
        left = min(burst, left + (now - before) * rate)
        wait = limit.wait_for(key)
        if abs(left - 1) > 1e-6:
            assert (wait == 0) == (left >= 1)
        if wait == 0:
            left -= 1
        else:
            assert abs(wait - (1 - left) / rate) < 1e-6
        tokens[key] = left, now


def test_less_than_one_at_once_is_one() -> None:
    now = 0.0
    limit = RateLimit(0.5 / 60, 0.5, clock=lambda: now)
    assert limit.wait_for("a") == 0
    assert limit.wait_for("a") == 120
    now = 120.0
    assert limit.wait_for("a") == 0


def test_memory_is_bounded() -> None:
    now = 0.0
    limit = RateLimit(1.0, 1, clock=lambda: now)
    for i in range(3 * RateLimit.MAX_KEYS):
        limit.wait_for(str(i))
    assert len(limit._full_at) == RateLimit.MAX_KEYS
    now = 10.0
    limit.wait_for("later")
    assert len(limit._full_at) == 1


def test_who_is_always_busy_keeps_nobody_else_in_memory() -> None:
    """Buckets that are full again go, though the oldest key still uses its own."""
    now = 0.0
    limit = RateLimit(1.0, 5, clock=lambda: now)
    for i in range(200):
        now = float(i)
        assert limit.wait_for("busy") == 0
        assert limit.wait_for(str(i)) == 0
    assert len(limit._full_at) <= 3


def test_who_is_busy_is_not_forgotten_for_newcomers() -> None:
    """Of too many keys those idle the longest go, so that a flood of others resets nobody's limit."""
    now = 0.0
    limit = RateLimit(0.001, 2, clock=lambda: now)
    limit.wait_for("busy")
    for i in range(RateLimit.MAX_KEYS - 1):
        limit.wait_for(str(i))
    assert limit.wait_for("busy") == 0
    limit.wait_for("newcomer")
    assert limit.wait_for("busy") > 0
