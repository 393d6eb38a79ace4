"""Memory that was freed stays with the process."""

from __future__ import annotations

import ctypes
import os

# The numbers are of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Larger blocks go back at once: they are images, not what a batch takes. Some versions of glibc refuse more.
_LARGEST_KEPT = 32 << 20
_KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory, in blocks of up to 32 MiB; another C library stays as it is.

    By default it gives the memory of each batch back to the kernel, and the next batch takes it again, page by page. Settings of
    the user (``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``) go first.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
