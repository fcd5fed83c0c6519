"""Keep memory that was freed, instead of handing it back to the system and asking for it again a moment later."""

from __future__ import annotations

import ctypes
import platform

#: Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process's allocator keep what is freed, for the rest of its life.

    Every clip needs the same large blocks. glibc maps each anew and unmaps it when it is freed, so the kernel fills
    the same pages with zeros for every layer of every clip. What the process holds stays at its peak.

    Returns:
        True if it was done; False where the C library is not glibc, which then keeps its own ways.

    Source:
        mallopt(3): without ``M_MMAP_MAX`` nothing is mapped singly, below ``M_TRIM_THRESHOLD`` nothing is given back.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _LARGEST))
