"""Detect whether other programs slowed this one down."""

from __future__ import annotations

import os
import time
from dataclasses import astuple, dataclass
from pathlib import Path

#: Other programs that use fewer cores than this, together, do not count.
LEAST = 0.25

#: Other programs slowed this one down if less than a tenth of the cores' time was idle, the others used at least
#: :data:`LEAST`, and this program's threads got less than nine tenths of the time that they could have used.
_IDLE, _ENOUGH = 0.1, 0.9

#: What other programs use is looked at for this many seconds at least.
_LOOK = 0.2

_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class _Times:
    """Clock time and, since the machine started, the total, idle and own processor time, in seconds."""

    clock: float
    all: float
    idle: float
    ours: float

    @property
    def others(self) -> float:
        """How many cores other programs used, on average."""
        return (self.all - self.idle - self.ours) / self.clock


class CpuContention:
    """Measures how the machine's cores were used since this object was created. Linux only.

    Args:
        threads: How many of this program's threads compute at the same time.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._began = threads, _times()

    def others(self) -> float | None:
        """Return how many cores other programs, or other machines on the same host, used; None if that did no harm.

        None is returned if cores were idle as well, if this program's threads got all their time, or if nothing is
        known. Child processes of this program count as its own once they have ended.
        """
        if (spent := self._spent()) is None:
            return None
        could = min(self._threads * spent.clock, spent.all)
        served = spent.idle >= _IDLE * spent.all or spent.ours >= _ENOUGH * could
        return None if served or spent.others < LEAST else spent.others

    def used_by_others(self) -> float | None:
        """Return how many cores other programs used, whether or not that did harm; None if nothing is known.

        If this object was created just now, it waits until there is something to see.
        """
        if self._began is not None:
            time.sleep(max(0.0, _LOOK - (time.monotonic() - self._began.clock)))
        spent = self._spent()
        return None if spent is None else spent.others

    def _spent(self) -> _Times | None:
        """Return the times since this object was created."""
        began, now = self._began, _times()
        if began is None or now is None or now.all <= began.all:
            return None
        return _Times(*(b - a for a, b in zip(astuple(began), astuple(now), strict=True)))


def _times() -> _Times | None:
    try:
        user, nice, system, idle, disk, *rest = map(int, _STAT.read_text().splitlines()[0].split()[1:9])
    except OSError:
        return None
    own, ticks = os.times(), os.sysconf("SC_CLK_TCK")
    return _Times(
        clock=time.monotonic(),
        all=(user + nice + system + idle + disk + sum(rest)) / ticks,
        idle=(idle + disk) / ticks,
        ours=own.user + own.system + own.children_user + own.children_system,
    )
