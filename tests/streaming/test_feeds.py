"""What a live source shows: the newest frames since the last chunk, within bounds, by a clock of its own."""

import threading
from itertools import pairwise

import numpy as np
import pytest

from pyrf.streaming.feeds import FeedClosedError, InOrder, Newest
from pyrf.video.writer import Frames

FPS, LONGEST = 10.0, 4


def picture(level: int) -> Frames:
    return np.full((8, 12, 3), level, np.uint8)


def levels(frames: Frames | None) -> list[int]:
    assert frames is not None
    return [int(frame[0, 0, 0]) for frame in frames]


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def newest(clock: Hand) -> Newest:
    return Newest(8, 12, FPS, LONGEST, waits=False, clock=clock)


def test_a_chunk_shows_the_time_since_the_one_before() -> None:
    clock = Hand()
    feed = newest(clock)
    for level in range(10):  # a camera at the stream's rate
        feed.put(picture(level))
        clock.now += 0.1
    clock.now -= 0.1
    assert levels(feed.take(4)) == [6, 7, 8, 9]  # those before are late
    for level in (10, 11, 12, 13):
        clock.now += 0.1
        feed.put(picture(level))
    assert levels(feed.take(4)) == [10, 11, 12, 13]


def test_a_frame_is_seen_until_the_next_and_time_never_goes_back() -> None:
    clock = Hand()
    feed = newest(clock)
    feed.put(picture(1))
    assert levels(feed.take(4)) == [1, 1, 1, 1]
    clock.now += 0.1
    feed.put(picture(2))
    assert levels(feed.take(4)) == [1, 1, 1, 2]  # asked for too early: 1 was the last that was shown
    clock.now += 5
    assert levels(feed.take(4)) == [2, 2, 2, 2]  # the camera has stopped


def test_a_fast_camera_is_thinned_and_memory_bounded() -> None:
    clock = Hand()
    feed = newest(clock)
    for level in range(200):
        feed.put(picture(level))
        clock.now += 0.01  # ten times the stream's rate
        assert len(feed._kept) <= 2 * LONGEST
    found = levels(feed.take(4))
    assert found[-1] == 199
    assert all(5 <= b - a <= 15 for a, b in pairwise(found))


def test_a_wait_lasts_as_long_as_the_chunk_does() -> None:
    feed = Newest(8, 12, 1000.0, LONGEST)
    threading.Timer(0.01, feed.put, (picture(7),)).start()
    assert levels(feed.take(4)) == [7] * 4  # the first frame is waited for
    until = feed._until
    assert until is not None
    feed.take(4)
    assert feed._until is not None
    assert feed._until - until >= 4 / 1000


def test_the_end_and_the_close_of_a_live_source() -> None:
    feed = newest(Hand())
    assert not feed.ready
    feed.end()
    assert feed.ready
    assert feed.take(4) is None
    feed.close()
    with pytest.raises(FeedClosedError):
        feed.take(4)
    with pytest.raises(FeedClosedError):
        feed.put(picture(1))


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1.0, [0, 1, 2, 3, 4, 5]), (0.5, [0, 2, 4]), (16 / 30, [0, 1, 3, 5, 7, 9])]
)
def test_in_order_every_frame_stands_as_long_as_in_the_source(ratio: float, expected: list[int]) -> None:
    feed = InOrder(8, 12, ratio)
    for level in range(round(len(expected) / ratio)):
        feed.put(picture(level))
    feed.end()
    assert levels(feed.take(len(expected))) == expected
    assert feed.take(1) is None
