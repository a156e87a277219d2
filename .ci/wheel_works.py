"""Whether pyrf works where a wheel of it was just installed: away from its sources, with nothing else."""

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pyrf, pyrf._native, pyrf.export, pyrf.training; print(pyrf.__version__, pyrf.__file__)",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert shown[0] == version("pyrf-stream"), shown
    assert "site-packages" in shown[1], f"not the wheel's: {shown[1]}"
    video = Path(folder, "out.mp4")
    command = ["generate", "a red circle moves right", "--seconds", "1", "-o", str(video)]
    subprocess.run([sys.executable, "-m", "pyrf", *command], cwd=folder, check=True)
    assert video.stat().st_size > 1000
    for arguments in (["doctor"], ["words", "--model", "valley"]):
        subprocess.run([sys.executable, "-m", "pyrf", *arguments], cwd=folder, check=True)
print("the wheel works")
