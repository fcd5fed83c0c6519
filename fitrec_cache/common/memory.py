"""How much memory there is; and keep what was freed, instead of asking the system for it again a moment later."""

from __future__ import annotations

import ctypes
import platform
import re
from contextlib import suppress
from pathlib import Path

#: Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1

_MEMINFO = Path("/proc/meminfo")

#: Where a container says how much it may take, in bytes: the second and the first version of control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_here() -> tuple[int, int]:
    """Return how much memory there is and how much of it is free, in bytes.

    Returns:
        Two zeros where the system does not say. In a container with a limit that, and zero: what of it others there
            use, and what of that could be given back, is not looked at.
    """
    try:
        found = dict(re.findall(r"^(\w+): +(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE))
        total, free = (1024 * int(found[name]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):
        return 0, 0
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # not there, or "max"
            if (limit := int(path.read_text())) < total:
                return limit, 0
    return total, free


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
