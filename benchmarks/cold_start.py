"""From typing `pyrf generate` to the first frame on disk, in a new process each time.

    python benchmarks/cold_start.py

Python starts, imports, loads the model, makes the first chunk and writes its first frame: the clock stops
when that file is there. Files are in the system's cache after the untimed first run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyrf.machine import processor
from pyrf.reports.bench import PROMPT

POLL_S = 0.002


def cold_start(model: str) -> float:
    """Seconds from the start of the process to its first frame."""
    with tempfile.TemporaryDirectory() as folder:
        program = "from pyrf.cli import main; main()"
        options = ["--model", model, "-o", f"{folder}/frames/"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", program, "generate", PROMPT, *options],
            stdout=subprocess.DEVNULL,
        )
        # Frames go to a hidden partial folder, which takes its name at the end.
        while not any(Path(folder).glob("*/frame_000000.png")):
            if process.poll():
                raise SystemExit(f"pyrf generate failed with exit code {process.returncode}")
            time.sleep(POLL_S)
        seconds = time.perf_counter() - start
        process.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cold_start(arguments.model)
    seconds = [cold_start(arguments.model) for _ in range(arguments.repeats)]
    median = statistics.median(seconds)
    print(
        f"first frame after {median:.2f} s (median of {len(seconds)}, {min(seconds):.2f}..{max(seconds):.2f})"
    )
    print(json.dumps({**vars(arguments), "processor": processor(), "seconds": seconds, "median_s": median}))


if __name__ == "__main__":
    main()
