"""The build, as pip calls it (PEP 517): setuptools', which asks for CMake where a native module needs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

CMAKE_NEEDED = (3, 22)
COMPILERS = ("c++", "g++", "clang++")


def cmake_version() -> tuple[int, int] | None:
    """Of the `cmake` on PATH; None where there is none that runs."""
    try:
        told = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"version (\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else None


def native_requirements() -> list[str]:
    """CMake from the package index, where a native module will be built and none on PATH will do.

    Without a compiler it would be of no use, and then pyrf is built without its native module.
    """
    mode = os.environ.get("PYRF_NATIVE", "auto").lower()
    has_compiler = "CXX" in os.environ or any(map(shutil.which, COMPILERS))
    if mode == "off" or (mode != "on" and not has_compiler):
        return []
    version = cmake_version()
    return [] if version is not None and version >= CMAKE_NEEDED else ["cmake>=3.22"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *native_requirements()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *native_requirements()]
