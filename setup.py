"""Builds the native module with CMake.

`export/` and `training/` lie beside `pyrf/`, and relative links in it make them `pyrf.export` and
`pyrf.training`: for Python, for setuptools, for type checkers and editors alike.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def run_cmake(*arguments: str) -> None:
    """Run CMake; when it cannot be run or fails, stop with what to do instead of a traceback."""
    try:
        subprocess.check_call(["cmake", *arguments])
    except FileNotFoundError:
        sys.exit("pyrf: building the native module needs CMake 3.22 or newer, and no `cmake` is on PATH")
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"pyrf: `cmake {' '.join(arguments)}` failed with exit status {error.returncode}; its own "
            "message is above. The build needs a C++17 compiler and Python's headers; PYRF_CUDA=off builds "
            "without CUDA."
        )


class CleanBuild(build):
    """A build from nothing: a module that was removed since the last one must not reach a wheel."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Configure, build and install `csrc/` into the package folder."""

    def run(self) -> None:
        editable = self.inplace or getattr(self, "editable_mode", False)
        prefix = ROOT if editable else Path(self.build_lib).resolve()
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
            f"-DPYRF_CUDA={os.environ.get('PYRF_CUDA', 'auto')}",
        )
        run_cmake("--build", str(build), "--parallel", str(os.cpu_count() or 1))
        run_cmake("--install", str(build))

    def get_outputs(self) -> list[str]:
        return [str(path) for path in Path(self.build_lib, "pyrf").glob("_native*.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return ["CMakeLists.txt", *(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*"))]


setup(
    packages=find_packages(include=["pyrf", "pyrf.*"]),
    ext_modules=[Extension("pyrf._native", [])],
    cmdclass={"build": CleanBuild, "build_ext": CMakeBuild},
)
