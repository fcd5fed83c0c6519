"""How much memory the machine has, and an allocator setting that keeps freed memory for reuse."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1

_MEMINFO = Path("/proc/meminfo")

#: Which control groups this process is in, and where these are described.
_GROUPS, _GROUPS_ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_here() -> tuple[int, int]:
    """Return how much memory there is and how much of it is free, in bytes.

    Returns:
        Two zeros where the system does not say. Under a memory limit, as in a container: that limit, and zero, because
        what other programs use there, and what of that could be freed, is not examined.
    """
    try:
        found = dict(re.findall(r"^(\w+): +(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE))
        total, free = (1024 * int(found[name]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):
        return 0, 0
    limit = min(_limits(), default=total)
    return (limit, 0) if limit < total else (total, free)


def _limits() -> Iterator[int]:
    """Yield the memory limits, in bytes, of this process's control groups and those around them; versions 1 and 2."""
    with suppress(OSError):
        for line in _GROUPS.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = _GROUPS_ROOT / "memory" if controllers else _GROUPS_ROOT
            group = Path(name.lstrip("/"))
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # not there, or "max"
                    yield int((root / folder / ("memory.limit_in_bytes" if controllers else "memory.max")).read_text())


def keep_freed_memory() -> bool:
    """Make this process's memory allocator keep freed memory, for the rest of the process's life.

    Every clip needs the same large blocks. By default glibc maps each block anew and unmaps it when it is freed, so the
    kernel fills the same pages with zeros for every layer of every clip. With this setting the process's memory stays
    at its peak. It does little for other threads than the main one, which glibc gives allocators of their own.

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
