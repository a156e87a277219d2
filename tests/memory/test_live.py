"""Bytes that are alive on the meta device, beside what is known of them."""

import torch
from torch import Tensor, nn

from pyrf.memory.live import LiveBytes, measured


def meta(numbers: int) -> Tensor:
    return torch.empty(numbers, dtype=torch.float32, device="meta")


def test_the_most_at_once() -> None:
    with LiveBytes() as live:
        first = meta(100)
        second = meta(50)
        view = second.view(5, 10)
        del second
        assert live.now == 4 * 150  # a view holds what it shows
        del view
        third = meta(20)
        assert live.now == 4 * 120
        del first, third
    assert (live.now, live.peak) == (0, 4 * 150)


def test_what_was_there_before_does_not_count() -> None:
    there = meta(1000)
    with LiveBytes() as live:
        made = there + 1
        there.add_(1)
        assert live.now == made.nbytes == live.peak


def test_what_is_kept_and_what_is_worked_with() -> None:
    kept: dict[str, Tensor] = {}

    def call() -> None:
        wide = meta(300)
        kept["last"] = (wide * 2)[:0].new_empty(10)

    held, work = measured(call)
    assert held == 4 * 10
    assert work == 4 * (300 + 300 + 10)


def test_a_network_s_working_memory() -> None:
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8)).to("meta")
    rows = meta(8 * 5).view(5, 8)

    @torch.no_grad()
    def call() -> None:
        network(rows)

    held, work = measured(call)
    assert held == 0
    assert work == 4 * 5 * (64 + 64)  # the input of an activation, and its result
