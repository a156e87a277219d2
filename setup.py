"""Builds the native module with CMake, where that can be done: pyrf works without it.

The environment variable PYRF_NATIVE is `auto`, `on` (no install without the module) or `off`.

`export/` and `training/` lie beside `pyrf/`, and relative links in it make them `pyrf.export` and
`pyrf.training`: for Python, for setuptools, for type checkers and editors alike.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


MODES = ("auto", "on", "off")


class BuildError(Exception):
    """The native module cannot be built, and why."""


def option(name: str) -> str:
    """PYRF_NATIVE or PYRF_CUDA: auto, on or off."""
    value = os.environ.get(name, "auto").lower()
    if value not in MODES:
        sys.exit(f"pyrf: {name} must be auto, on or off, got {value!r}")
    return value


def run_cmake(*arguments: str) -> None:
    """Run CMake.

    Raises:
        BuildError: when it cannot be run or fails, with what to do.
    """
    try:
        subprocess.check_call(["cmake", *arguments])
    except OSError as error:
        raise BuildError(
            f"it needs CMake 3.22 or newer, and no `cmake` is on PATH ({error.strerror})"
        ) from error
    except subprocess.CalledProcessError as error:
        raise BuildError(
            f"`cmake {' '.join(arguments)}` failed with exit status {error.returncode}; its own "
            "message is above. The build needs a C++17 compiler and Python's headers; PYRF_CUDA=off builds "
            "without CUDA"
        ) from error


class CleanBuild(build):
    """A build from nothing: a module that was removed since the last one must not reach a wheel."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Configure, build and install `csrc/` into the package folder."""

    def run(self) -> None:
        native, cuda = option("PYRF_NATIVE"), option("PYRF_CUDA")
        editable = self.inplace or getattr(self, "editable_mode", False)
        prefix = ROOT if editable else Path(self.build_lib).resolve()
        # One of an earlier build would hide that there is none now, and may not fit the sources.
        for stale in prefix.glob(f"pyrf/_native*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            stale.unlink()
        if native == "off":
            return
        try:
            self._build(prefix, cuda)
        except BuildError as error:
            if native == "on" or cuda == "on":
                sys.exit(f"pyrf: the native module cannot be built: {error}.")
            self.warn(
                f"pyrf is installed without its native module: {error}. torch does its work, somewhat slower "
                "on a CPU. PYRF_NATIVE=on insists on the module; PYRF_NATIVE=off says that none is wanted."
            )

    def _build(self, prefix: Path, cuda: str) -> None:
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        # What the cache remembers may lie in the build environment of an earlier pip, which is gone.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        run_cmake(
            "-S",
            str(ROOT),
            "-B",
            str(build),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPYRF_CUDA={cuda}",
        )
        run_cmake("--build", str(build), "--parallel", str(os.cpu_count() or 1))
        run_cmake("--install", str(build))

    def get_outputs(self) -> list[str]:
        return [str(path) for path in Path(self.build_lib, "pyrf").glob("_native*.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return [
            "CMakeLists.txt",
            "build_backend.py",
            *(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*")),
        ]


setup(
    packages=find_packages(include=["pyrf", "pyrf.*"]),
    ext_modules=[Extension("pyrf._native", [])],
    cmdclass={"build": CleanBuild, "build_ext": CMakeBuild},
)
