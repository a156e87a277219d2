"""The order of addresses against what fair means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrf.serve.sessions.shares import Shares


@dataclass(frozen=True)
class One:
    address: str
    name: int


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1), st.integers(1, 4))
@settings(deadline=None)
def test_addresses_that_always_want_something_get_the_same(counts: dict[str, int], batch: int) -> None:
    shares, served = Shares[One](), Counter[str]()
    waiting = [One(address, i) for address, count in counts.items() for i in range(count)]
    for _ in range(200):
        turn = shares.order(waiting)[: min(batch, len(waiting))]
        shares.count(turn)
        served.update(one.address for one in turn)
        waiting = [one for one in waiting if one not in turn] + turn
    if min(counts.values()) >= batch:  # else a batch has room that only others can take
        assert max(served.values()) - min(served.values()) <= batch + 1


def test_who_comes_back_is_first_once_and_saved_nothing_up() -> None:
    shares = Shares[One]()
    modest, greedy = One("modest", 0), [One("greedy", i) for i in range(3)]
    for _ in range(1000):
        shares.count(shares.order(greedy)[:1])
    for _ in range(5):
        turns = []
        for _ in range(4):
            (turn,) = shares.order([*greedy, modest])[:1]
            shares.count([turn])
            turns.append(turn.address)
        assert turns.count("modest") == 2


def test_order_within_an_address_stays() -> None:
    shares = Shares[One]()
    waiting = [One(address, i) for i, address in enumerate("aabab")]
    ordered = shares.order(waiting)
    for address in "ab":
        assert [one for one in ordered if one.address == address] == [
            one for one in waiting if one.address == address
        ]


def test_addresses_that_had_their_turn_are_forgotten() -> None:
    shares = Shares[One]()
    for i in range(1000):
        shares.count([One(str(i), 0)])
        shares.count([One("other", 0)])
    assert len(shares._ends) <= 2
