"""How many sessions a call has when time is short."""

from pyrf.serve.sessions.calls import CallLengths


def test_calls_become_shorter_only_where_fewer_sessions_are_faster() -> None:
    calls = CallLengths(0.2)
    assert calls.most(4) == 4  # never tried
    calls.count(4, 0.4)
    assert calls.most(4) == 3
    calls.count(3, 0.3)
    calls.count(2, 0.19)
    assert calls.most(4) == 2
    calls.count(1, 0.34)  # a call of one is no faster: the work does not grow with the sessions
    assert calls.most(4) == 4


def test_a_slow_moment_is_forgotten() -> None:
    calls = CallLengths(0.2)
    calls.count(2, 1.0)
    assert calls.most(2) == 1
    for _ in range(8):
        calls.count(2, 0.1)
    assert calls.most(2) == 2
