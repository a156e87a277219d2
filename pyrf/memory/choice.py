"""The setup of a model that fits into a memory: the first that does, of an order from cheap to dear.

It is chosen by rules, never by trying: nothing is loaded for it. What changes no picture comes first. Of a
GPU a Wan VAE decodes frame by frame (somewhat slower); then the text encoder computes on the CPU (a prompt
takes seconds) or is read anew for each prompt (the same, from the disk); then TAEHV decodes, where the bundle
has it (softer pictures); last the window is shortened, which changes what the stream remembers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch

from pyrf.backends.tensorrt.rollout import PlanSet
from pyrf.bundle.bundle import Bundle
from pyrf.bundle.codecs import TINY_CODECS
from pyrf.machine import available_memory
from pyrf.memory.allocator import give_back
from pyrf.memory.bill import Bill, shown, total
from pyrf.memory.engines import EngineSizes
from pyrf.memory.estimate import Estimator
from pyrf.memory.setup import Setup, TextPlace

logger = logging.getLogger("pyrf.memory")

AMPLE = 16
"""Where so many times what may be held is free, nothing is counted: no model needs as much to work."""

MARGIN = 1.1
"""Of a limit a tenth is kept for what is not counted: workspaces of libraries, and gaps of the allocator."""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(given: str | int) -> int:
    """Bytes of "12GiB", "800 MB" or a whole number.

    Raises:
        ValueError: when it is no positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(given).lower())
    if isinstance(given, bool) or match is None or match[2] not in _UNITS:
        raise ValueError(f"max_memory must be a size such as 12GiB or 800MB, got {given!r}")
    size = int(float(match[1]) * _UNITS[match[2]])
    if not size:
        raise ValueError(f"max_memory must be a size above 0, such as 12GiB, got {given!r}")
    return size


def free_bytes(device: torch.device) -> int | None:
    """Bytes that may still be taken on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


@dataclass(frozen=True)
class ChosenSetup:
    """A setup that was chosen, and why.

    Attributes:
        setup: to load by.
        bill: of it; None where it was not counted, as far more is free.
        free: bytes that are free on the device, where that is known.
        why: what was changed, in words; empty where nothing had to be.
    """

    setup: Setup
    bill: Bill | None
    free: int | None
    why: str = ""

    def lines(self) -> list[str]:
        """For people, what is chosen last."""
        if self.bill is None:
            return [f"memory: far more than it takes is free on {self.setup.device}"]
        return [self.bill.line(self.free), *([f"memory: {self.why}"] if self.why else [])]


def choose_setup(
    bundle: Bundle,
    asked: Setup,
    max_memory: str | int | None = None,
    *,
    tell: bool = False,
    always: bool = False,
) -> ChosenSetup:
    """The setup that a bundle is loaded by: as asked for, or what has to be changed for it to fit.

    Args:
        max_memory: bytes that may be taken, as `parse_size` reads them: on a GPU its memory, else the
            resident memory of the process. None: nothing is changed, and what is free is the limit.
        tell: whether the log says so.
        always: whether it is counted even where far more is free.

    Raises:
        ValueError: when it does not fit; the message says what would.
    """
    found = _choose(bundle, asked, None if max_memory is None else parse_size(max_memory), always=always)
    if tell:
        for line in found.lines():
            logger.log(logging.DEBUG if found.bill is None else logging.INFO, line)
    return found


def _choose(bundle: Bundle, asked: Setup, limit: int | None, *, always: bool) -> ChosenSetup:
    free, estimator = free_bytes(asked.device), Estimator(bundle)
    if limit is None and not always and (free is None or free > AMPLE * estimator.at_most(asked)):
        return ChosenSetup(asked, None, free)
    if limit is not None and asked.device.type == "cpu":
        give_back()
        asked = replace(asked, arenas=False)
    bill = estimator.bill(asked)
    if limit is None:
        if free is not None and _new(bill) > free:
            raise ValueError(_too_big(estimator, asked, free, "free"))
        return ChosenSetup(asked, bill, free)
    if bill.peak * MARGIN <= limit:
        return ChosenSetup(asked, bill, free, f"fits into {shown(limit)} as it is")
    for setup, changed in _measures(asked, estimator):
        other = estimator.bill(setup)
        if other.peak * MARGIN <= limit:
            why = f"as asked for it would need {shown(bill.peak)}; to fit into {shown(limit)}: "
            return ChosenSetup(setup, other, free, why + ", ".join(changed))
    raise ValueError(_too_big(estimator, asked, limit, "allowed"))


def check_fit_together(models: Mapping[str, tuple[Bundle, Setup]]) -> None:
    """Refuse models of one process that do not fit into what is free of their device.

    Each is counted with one stream. As one computes at a time, the largest working memory counts once.

    Args:
        models: how each is held, by names for people; all on one device.

    Raises:
        ValueError: what each needs, and what is free.
    """
    device = next(setup.device for _, setup in models.values())
    free = free_bytes(device)
    counted = {name: (Estimator(bundle), setup) for name, (bundle, setup) in models.items()}
    if free is None or free > AMPLE * sum(one.at_most(setup) for one, setup in counted.values()):
        return
    bills = {name: one.bill(setup) for name, (one, setup) in counted.items()}
    needed = sum(_kept(bill) for bill in bills.values())
    needed += max(_new(bill) - _kept(bill) for bill in bills.values())
    logger.info(f"memory: {len(bills)} models need {shown(needed)} together, and {shown(free)} are free")
    if needed > free:
        each = ", ".join(f"{name} {shown(_new(bill))}" for name, bill in bills.items())
        raise ValueError(
            f"{each} need {shown(needed)} together on {device}, and {shown(free)} are free; "
            "serve fewer of them here"
        )


def check_engines(bundle: Bundle, setup: Setup, plans: PlanSet) -> None:
    """Say what engines of TensorRT hold, now that they are loaded and tell it.

    Raises:
        ValueError: when what is left does not hold a stream.
    """
    bill, free = Estimator(bundle).bill(setup, EngineSizes.of(plans)), free_bytes(setup.device)
    logger.info(f"{bill.line(free)} (the engines are loaded, so it is what they say)")
    if free is not None and bill.per_stream > free:
        raise ValueError(
            f"the engines of {bundle.path.name} are loaded, a stream needs {shown(bill.per_stream)} more "
            f"on {bill.device}, and {shown(free)} are free; a shorter window and smaller frames need less"
        )


def with_window(bundle: Bundle, window_frames: int) -> Bundle:
    """A bundle whose streams have another window, as if it had been asked for."""
    if window_frames == bundle.stream_config.window_frames:
        return bundle
    choice = replace(bundle.choice, own={**bundle.choice.own, "window_frames": window_frames})
    return replace(bundle, stream_config=choice.applied(bundle.stream_config), choice=choice)


def _kept(bill: Bill) -> int:
    """What is still to be taken for as long as the stream runs."""
    return total(row for row in bill.held if row.part != "process")


def _new(bill: Bill) -> int:
    """What is still to be taken at the peak: the process is there already."""
    return bill.peak - total(row for row in bill.held if row.part == "process")


def _measures(
    asked: Setup, estimator: Estimator, *, with_tiny: bool = False
) -> Iterator[tuple[Setup, list[str]]]:
    """Other setups in the order of what they cost, each with what it changes.

    Args:
        with_tiny: whether TAEHV is among them though the bundle has none.
    """
    gpu, stream = asked.device.type == "cuda", asked.stream
    least = stream.sink_frames + stream.chunk_frames
    windows = range(stream.window_frames, least - 1, -stream.chunk_frames)
    if asked.exported is not None:  # whose graphs have the window that they have
        windows = range(stream.window_frames, stream.window_frames + 1)
    texts: list[TextPlace] = [asked.text]
    if asked.text == "device":
        texts += ["cpu", "freed"] if gpu else ["freed"]
    by_frame = [False, True] if gpu and estimator.parts.decodes_by_frame(asked) else [asked.by_frame]
    tiny = [False]
    if estimator.parts.has_large_codec(asked) and (with_tiny or estimator.bundle.tiny_codec is not None):
        tiny.append(True)
    for window, codec, text, one in product(windows, tiny, texts, by_frame):
        if codec and one:
            continue  # TAEHV decodes alike in either way
        narrowed = replace(stream, window_frames=window)
        setup = replace(
            asked,
            stream=narrowed,
            text=text,
            by_frame=one or asked.by_frame,
            tiny_codec=codec,
            arenas=False,  # as with any limit
        )
        if changed := setup.changes(asked):
            yield setup, changed


def _least(asked: Setup, estimator: Estimator, *, with_tiny: bool = False) -> tuple[int, list[str]]:
    """The smallest peak that a setup may have, and what has to be changed for it."""
    found = (estimator.bill(asked).peak, list[str]())
    for setup, changed in _measures(asked, estimator, with_tiny=with_tiny):
        found = min(found, (estimator.bill(setup).peak, changed), key=lambda one: one[0])
    return found


def _too_big(estimator: Estimator, asked: Setup, limit: int, what: str) -> str:
    """What is said of a model that does not fit: what it needs, and what would need less."""
    bill = estimator.bill(asked)
    name = estimator.bundle.path.name
    message = f"{name} needs {shown(bill.peak)} on {bill.device}, and {shown(limit)} are {what}"
    for setup, changed in _measures(asked, estimator):
        peak = estimator.bill(setup).peak
        if peak * MARGIN <= limit:
            option = f"--fit {shown(limit).replace(' ', '')} (max_memory=)"
            return f"{message}; {option} would take {shown(peak)} by {' and '.join(changed)}"
    least, changed = _least(asked, estimator)
    others = [f"{' and '.join(changed)} would need {shown(least)}"] if changed else []
    if asked.backend == "onnxruntime":
        others.append("--backend torch needs less, as each weight is held once")
    elif asked.dtype == torch.float32:
        others.append("--dtype bfloat16 takes half")
    if estimator.parts.has_large_codec(asked) and estimator.bundle.tiny_codec is None:
        tiny, _ = _least(asked, estimator, with_tiny=True)
        file = f"{TINY_CODECS[0]} in {estimator.bundle.path}"
        others.append(f"with TAEHV as its codec {shown(tiny)}: put {file}")
    return "; ".join([message, *others, "smaller frames and smaller models need less"])
