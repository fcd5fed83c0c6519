"""Detect whether other programs slowed this one down."""

from __future__ import annotations

import os
import time
from dataclasses import astuple, dataclass
from pathlib import Path

#: Other programs slowed this one down if less than a tenth of the cores' time was idle, the others used at least a
#: quarter of a core, and this program's threads got less than nine tenths of the time that they could have used.
_IDLE, _OTHERS, _ENOUGH = 0.1, 0.25, 0.9

_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class _Times:
    """Clock time and, since the machine started, the total, idle and own processor time, in seconds."""

    clock: float
    all: float
    idle: float
    ours: float


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
        others = spent.all - spent.idle - spent.ours
        could = min(self._threads * spent.clock, spent.all)
        served = spent.idle >= _IDLE * spent.all or spent.ours >= _ENOUGH * could
        return None if served or others < _OTHERS * spent.clock else others / spent.clock

    def used_by_others(self) -> float | None:
        """Return how many cores other programs used, whether or not that did harm; None if nothing is known."""
        spent = self._spent()
        return None if spent is None else (spent.all - spent.idle - spent.ours) / spent.clock

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
