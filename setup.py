"""Builds the native module with CMake and maps `export/` and `training/` into the package."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configure, build and install `csrc/` into the package folder."""

    def run(self) -> None:
        editable = self.inplace or getattr(self, "editable_mode", False)
        prefix = ROOT if editable else Path(self.build_lib).resolve()
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        if "PYRF_CUDA" in os.environ:
            configure.append(f"-DPYRF_CUDA={os.environ['PYRF_CUDA'].upper()}")
        subprocess.check_call(["cmake", "-S", str(ROOT), "-B", str(build), *configure])
        subprocess.check_call(["cmake", "--build", str(build), "--parallel"])
        subprocess.check_call(["cmake", "--install", str(build)])

    def get_outputs(self) -> list[str]:
        return [str(path) for path in Path(self.build_lib, "pyrf").glob("_native*.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return ["CMakeLists.txt", *(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*"))]


def subpackages(name: str, folder: str) -> dict[str, str]:
    """Package name -> folder, for a package that lives outside `pyrf/`."""
    found = {name: folder}
    for package in find_packages(folder):
        found[f"{name}.{package}"] = f"{folder}/{package.replace('.', '/')}"
    return found


MAPPED = subpackages("pyrf.export", "export") | subpackages("pyrf.training", "training")

setup(
    packages=[*find_packages(include=["pyrf", "pyrf.*"]), *MAPPED],
    package_dir=MAPPED,
    ext_modules=[Extension("pyrf._native", [])],
    cmdclass={"build_ext": CMakeBuild},
)
