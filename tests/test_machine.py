"""What measurements say of their machine."""

from __future__ import annotations

from pyrf.machine import peak_rss_mib, percentile, processor


def test_percentile() -> None:
    values = [float(value) for value in range(200, 0, -1)]
    assert percentile(values, 99) == 198
    assert percentile(values, 50) == 100
    assert percentile(values, 100) == 200
    assert percentile([7.0], 99) == 7


def test_the_machine() -> None:
    assert peak_rss_mib() > 5
    assert processor()
