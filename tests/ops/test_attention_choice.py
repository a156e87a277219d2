"""The choice of an attention: timed once a workload, forced on demand, never timed in a capture."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch

from pyrf.ops import native, set_attention
from pyrf.ops.attention_choice import (
    CHOICE,
    REPEATS,
    VARIABLE,
    WARM_UPS,
    AttentionChoice,
    Workload,
    time_on_device,
)

WORKLOAD = Workload(1, 12, 4680, 14040, 128, torch.bfloat16, torch.device("cuda", 0))


class Clock:
    """Says what each of the runs takes, and notes which were timed."""

    def __init__(self, **seconds):
        self.backends = {name: partial(self.run, name) for name in seconds}
        self.seconds, self.timed, self.capturing = seconds, [], False

    def choice(self):
        return AttentionChoice(self.time, lambda: self.capturing)

    def choose(self, choice, workload=WORKLOAD):
        return choice.choose(workload, self.backends, "q", "keys")

    def run(self, name, *arguments):
        assert arguments == ("q", "keys")
        return name

    def time(self, run, device):
        assert device.type == "cuda"
        self.timed.append(run())
        return self.seconds[run()]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("seconds", "faster"), [({"pyrf": 1.0, "sdpa": 2.0}, "pyrf"), ({"pyrf": 2.0, "sdpa": 1.0}, "sdpa")]
)
def test_the_faster_one_is_kept_and_timed_once_a_workload(seconds, faster):
    clock = Clock(**seconds)
    choice = clock.choice()
    for _ in range(3):
        assert clock.choose(choice) == faster
    assert clock.timed == ["pyrf", "sdpa"]
    assert choice.made[WORKLOAD] == (faster, seconds)
    for change in ({"length": 4680}, {"dtype": torch.float16}, {"device": torch.device("cuda", 1)}):
        clock.choose(choice, WORKLOAD._replace(**change))
    assert len(clock.timed) == 8


def test_nothing_is_timed_in_a_capture():
    clock = Clock(pyrf=1.0, sdpa=2.0)
    choice = clock.choice()
    clock.capturing = True
    assert clock.choose(choice) == "sdpa"
    assert not clock.timed
    clock.capturing = False
    assert clock.choose(choice) == "pyrf"
    clock.capturing = True
    assert clock.choose(choice) == "pyrf"
    assert clock.timed == ["pyrf", "sdpa"]


def test_the_timer_takes_the_median_after_warm_ups(monkeypatch):
    events: list[object] = []
    ran: list[float] = []
    devices: list[torch.device] = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            events.append(self)
            self.after = len(ran)

        def synchronize(self):
            assert events[-1] is self

        def elapsed_time(self, end):
            return sum(ran[self.after : end.after])

    def on_device(device):
        devices.append(device)
        return nullcontext()

    milliseconds = iter([900.0] * WARM_UPS + [500.0, 3.0, 2.0] + [4.0] * (REPEATS - 3))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", on_device)
    assert time_on_device(lambda: ran.append(next(milliseconds)), WORKLOAD.device) == 4e-3
    assert devices == [WORKLOAD.device]
    assert len(ran) == WARM_UPS + REPEATS


@pytest.mark.parametrize("mode", ["pyrf", "sdpa"])
def test_a_forced_one_is_not_timed(mode, monkeypatch):
    clock = Clock(pyrf=1.0, sdpa=2.0)
    choice = clock.choice()
    monkeypatch.setenv(VARIABLE, mode)
    assert clock.choose(choice) == mode
    assert not clock.timed
    choice.mode = "auto"
    assert clock.choose(choice) == "pyrf"


def test_an_unknown_one_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="auto, pyrf, sdpa, got 'flash'"):
        set_attention("flash")
    monkeypatch.setenv(VARIABLE, "flash")
    with pytest.raises(ValueError, match=f"{VARIABLE}.*'flash'"):
        _ = AttentionChoice().mode


def test_set_attention_is_for_the_process(monkeypatch):
    monkeypatch.setattr(CHOICE, "_mode", None)
    set_attention("sdpa")
    assert CHOICE.mode == "sdpa"


@pytest.mark.parametrize(
    ("heads", "head_dim", "dtype", "capability", "reason"),
    [
        (12, 128, torch.bfloat16, (9, 0), None),
        (2, 64, torch.float16, (8, 0), None),
        (12, 128, torch.float32, (9, 0), "bfloat16 and float16, got torch.float32"),
        (12, 96, torch.bfloat16, (9, 0), "head_dim of 64 or 128, got 96"),
        (41, 128, torch.bfloat16, (9, 0), "up to 5120 channels, got 5248"),
        (12, 128, torch.bfloat16, (7, 5), "compute capability 8.0 or newer, got 7.5"),
    ],
)
def test_what_the_kernels_serve(heads, head_dim, dtype, capability, reason, monkeypatch):
    monkeypatch.setattr(native, "kernels", object())
    monkeypatch.setattr(native, "_capability", lambda device: capability)
    refusal = native.refusal(heads, head_dim, dtype, torch.device("cuda", 0))
    assert refusal is None if reason is None else reason in (refusal or "")
    monkeypatch.setattr(native, "kernels", None)
    assert "without CUDA" in (native.refusal(heads, head_dim, dtype, torch.device("cuda", 0)) or "")
