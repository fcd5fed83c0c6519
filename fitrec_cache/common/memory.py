"""How much memory the machine has, and an allocator setting that keeps freed memory for reuse."""

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

#: The files with a container's memory limit in bytes: of control groups version 2 and version 1.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_here() -> tuple[int, int]:
    """Return how much memory there is and how much of it is free, in bytes.

    Returns:
        Two zeros where the system does not say. In a container with a memory limit: that limit, and zero, because what
        other programs use there, and what of that could be freed, is not examined.
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
    """Make this process's memory allocator keep freed memory, for the rest of the process's life.

    Every clip needs the same large blocks. By default glibc maps each block anew and unmaps it when it is freed, so the
    kernel fills the same pages with zeros for every layer of every clip. With this setting the process's memory stays
    at its peak.

    Returns:
        True if it was set; False if the C library is not glibc and its behaviour is unchanged.

    Source:
        mallopt(3): with ``M_MMAP_MAX`` 0 no block is mapped separately; below ``M_TRIM_THRESHOLD`` nothing is given
            back.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _LARGEST))
