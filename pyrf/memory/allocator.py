"""The C library's allocator, which by default keeps for itself what large tensors gave back."""

from __future__ import annotations

import ctypes
import platform

M_MMAP_THRESHOLD = -3
"""glibc's number of the size from which a block is the system's own, and goes back to it when freed."""
THRESHOLD = 128 * 2**10
"""Bytes, as glibc starts with. When it is set by hand, glibc no longer raises it, to 32 MiB at most."""


def give_back() -> bool:
    """From now on give memory of freed tensors back to the system at once; False where it is not glibc's.

    Without it a process holds up to a fifth more than its tensors need at once. With it each large tensor is
    mapped anew, which costs time.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, THRESHOLD))
