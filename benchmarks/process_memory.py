"""How much memory a process holds or held, by Linux's own count of it.

`getrusage` and `wait4` will not do: their peak also counts the larger parent that a process was forked from.
"""

from __future__ import annotations

import re
from pathlib import Path


def kilobytes(pid: object, field: str) -> int:
    """Return ``VmRSS`` (held now) or ``VmHWM`` (the most so far) of a process, or of ``self``; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    return int(found[1]) if found else 0
