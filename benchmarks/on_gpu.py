"""The steps of `on_gpu.sh`: each a command of its own with a time limit, in the order of what they are worth.

A step that fails or takes too long stops no other. Its state is "ok", "failed", "over time", "no time left"
or "not in this build". results.json is written anew, whole, after each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import Any

from pyrf.files import whole_file

BUDGET_S = 470.0
RIVAL_MS = 344.0
"""Of a chunk with TAEHV: FlashDreams on one H100, 34.9 FPS; its window is not stated, 21 frames at most."""
WINDOWS = (21, 9)
CODECS = ("taehv", "wan")
PRECISIONS = ("fp8-attention", "fp8")
"""Beside bfloat16, where `from_pretrained` takes a precision."""
KILLED_AFTER_S = 5.0
PATIENCE = 4
"""Times as long may a rehearsal take."""


@dataclass(frozen=True)
class Step:
    """A command.

    Attributes:
        limit_s: seconds that it may take.
        missing: why this build has no such step; it is not run then.
    """

    name: str
    command: Sequence[str]
    limit_s: float
    missing: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        figures: the last line of its output that is a JSON object.
        note: why there are none, what they are to be compared with, or the last line of another output.
    """

    state: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def steps(out: Path, *, rehearse: bool) -> Iterator[Step]:
    """All steps, the most valuable first.

    Args:
        out: where the bundles lie.
        rehearse: on a CPU, small.
    """
    python, device = sys.executable, "cpu" if rehearse else "cuda"
    dtype = "float32" if rehearse else "bfloat16"
    where = ("--device", device, "--dtype", dtype)
    small = ("--small",) if rehearse else ()
    bundles = {codec: str(out / "bundles" / codec) for codec in CODECS}
    yield Step("doctor", (python, "-m", "pyrf", "doctor", "--json"), 40)
    yield Step(
        "gpu tests",
        (
            python,
            "-m",
            "pytest",
            "-m",
            "gpu",
            "-p",
            "no:cacheprovider",
            "tests/kernels",
            "tests/backends",
            "tests/ops",
        ),
        90,
    )
    for codec, bundle in bundles.items():
        command = (python, "benchmarks/random_wan.py", bundle, "--codec", codec, "--device", device, *small)
        if not Path(bundle).exists():
            yield Step(f"bundle {codec}", command, 60)
    chunks = ("--chunks", "3", "--warm-up", "1") if rehearse else ("--chunks", "20", "--warm-up", "9")
    for precision in (None, *PRECISIONS):
        missing = None if precision is None else missing_precision(precision)
        for window in WINDOWS:
            for codec, bundle in bundles.items():
                command = (python, "-m", "pyrf", "bench", "--json", "--model", bundle, *where, *chunks)
                command += ("--stream", f"window={window}", "--repeats", "1")
                command += () if precision is None else ("--precision", precision)
                name = f"fps {codec} window {window} {precision or dtype}"
                yield Step(name, command, 40, missing)
    turns = ("--chunks", "2", "--warm-up", "1") if rehearse else ("--chunks", "12", "--warm-up", "4")
    race = (python, "benchmarks/h100.py", bundles["taehv"], *where, *turns, "--backends")
    yield Step("eager and graph", (*race, "torch", *(() if rehearse else ("graph",))), 60)
    yield Step("kernels", (python, "benchmarks/kernels.py", "--repeats", "40"), 60)
    load = "--viewers 1 4 --seconds 6 --repeats 3 --cycles 10 --messages 200"
    if rehearse:
        load = "--viewers 1 --seconds 1 --repeats 1 --cycles 2 --messages 5"
    serve = (python, "benchmarks/serve_load.py", "--model", bundles["taehv"], *where, *load.split())
    yield Step("serve load", (*serve, "--no-ray", "--no-abuse"), 90)
    for codec, bundle in bundles.items():
        yield Step(f"peak {codec}", (python, "-m", "tests.memory.measure_stream", bundle), 40)
    why = "a CPU has nothing to compare" if rehearse else None
    yield Step("compile", (*race, "torch", "compile"), 120, why)


def missing_precision(name: str) -> str | None:
    """Why this build cannot compute in a precision; None where it can, as far as names tell."""
    from pyrf.backends import choice
    from pyrf.pipeline import StreamingPipeline

    if "precision" not in signature(StreamingPipeline.from_pretrained).parameters:
        return "from_pretrained takes no precision"
    known = getattr(choice, "PRECISIONS", (name,))
    return None if name in known else f"precisions are {', '.join(known)}"


def run(step: Step, log: Path, left_s: float) -> Outcome:
    """Run a step for its time or what is left; what it prints goes to a file."""
    if step.missing is not None:
        return Outcome("not in this build", note=step.missing)
    limit = min(step.limit_s, left_s)
    if limit <= 0:
        return Outcome("no time left")
    start = time.perf_counter()
    with log.open("wb") as written:
        try:
            process = subprocess.Popen(
                step.command, stdout=subprocess.PIPE, stderr=written, start_new_session=True
            )
        except OSError as error:
            return Outcome("failed", note=f"cannot be started: {error.strerror}")
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return Outcome("over time", limit, note=f"ended after {limit:.0f} s {_end(process)}".strip())
        except BaseException:
            _end(process)
            raise
        written.write(output)
    seconds = time.perf_counter() - start
    text = output.decode(errors="replace")
    figures = last_object(text)
    if process.returncode:
        return Outcome("failed", seconds, figures, f"exit code {process.returncode}; see {log.name}")
    note = "" if figures else next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return Outcome("ok", seconds, figures, note)


def _end(process: subprocess.Popen[bytes]) -> str:
    """End a step with all that it started; what is worth saying of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=KILLED_AFTER_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
        else:
            break
    return "" if process.returncode == -signal.SIGTERM else "by force"


def last_object(output: str) -> dict[str, Any]:
    """The last line that is a JSON object; empty where there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                return value
    return {}


def compared(name: str, outcome: Outcome) -> str:
    """What a step's figures say beside those of others; empty where there is nothing beside them."""
    figures = outcome.figures
    if name.startswith("fps taehv window 21") and not name.endswith("float32") and figures:
        ms = figures["chunk_p50_ms"]
        return (
            f"{ms:.0f} ms per chunk, FlashDreams {RIVAL_MS:.0f} ms on one H100: {RIVAL_MS / ms:.2f} x as fast"
        )
    if "measured" in figures and "peak" in figures:
        off = 100 * (figures["peak"] / figures["measured"] - 1)
        return f"peak estimated {figures['peak']:,} bytes, measured {figures['measured']:,}: {off:+.1f} %"
    if "end_to_end_fps" in figures:
        return f"{figures['end_to_end_fps']:.1f} FPS end to end"
    return outcome.note


def run_all(todo: Sequence[Step], out: Path, budget_s: float, about: dict[str, Any]) -> dict[str, Any]:
    """Run steps in their order and write what is known after each; returns it."""
    start = time.perf_counter()
    results: dict[str, Any] = {**about, "budget_s": budget_s, "steps": {}}
    for step in todo:
        log = out / f"{step.name.replace(' ', '_')}.log"
        outcome = run(step, log, budget_s - (time.perf_counter() - start))
        note = compared(step.name, outcome)
        results["steps"][step.name] = {**asdict(outcome), "note": note, "command": list(step.command)}
        results["seconds"] = time.perf_counter() - start
        with whole_file(out / "results.json") as file:
            file.write_text(json.dumps(results, indent=1) + "\n")
        print(
            f"{outcome.state:18}{outcome.seconds:7.1f} s  {step.name}{': ' if note else ''}{note}", flush=True
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/on_gpu"), help="a folder; made where missing")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with small networks")
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP", help="steps whose name begins so")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds in all")
    arguments = parser.parse_args()
    out = arguments.out
    chosen = list(steps(out, rehearse=arguments.rehearse))
    if arguments.rehearse:  # a CPU may be slow, and busy with other tests
        chosen = [replace(step, limit_s=PATIENCE * step.limit_s) for step in chosen]
        arguments.budget *= PATIENCE
    if arguments.only:
        chosen = [step for step in chosen if step.name.startswith(tuple(arguments.only))]
    if not chosen:
        parser.error(f"no step begins with {' or '.join(arguments.only)}")
    out.mkdir(parents=True, exist_ok=True)
    about = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "rehearsal": arguments.rehearse}
    results = run_all(chosen, out, arguments.budget, about)
    failed = [name for name, step in results["steps"].items() if step["state"] in ("failed", "over time")]
    if failed:
        raise SystemExit(f"not well: {', '.join(failed)}")


if __name__ == "__main__":
    main()
