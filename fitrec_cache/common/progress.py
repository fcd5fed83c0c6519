"""Reporting of long work: notes as they arise, a progress bar (occasional lines in a log), and time spent by stage."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.utils import ObjectWrapper


@dataclass
class Notes:
    """Notes for the user, in order; each is passed on to ``tell``, if given, as soon as it is added."""

    tell: Callable[[str], None] | None = None
    texts: list[str] = field(default_factory=list)

    def add(self, *texts: str) -> None:
        """Add notes."""
        for text in texts:
            self.texts.append(text)
            if self.tell is not None:
                self.tell(text)

    def add_new(self, text: str) -> None:
        """Add a note unless it was added before."""
        if text not in self.texts:
            self.add(text)


class _Steady(ObjectWrapper):  # type: ignore[misc]
    """A stream that ignores write errors, such as a full disk: failing to show progress must not stop the work."""

    def __eq__(self, other: object) -> bool:  # tqdm compares streams to see whether prints go to the same terminal
        return bool(self._wrapped == getattr(other, "_wrapped", other))

    __hash__ = None  # type: ignore[assignment]

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._wrapped.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._wrapped.flush()


class _Bar(tqdm):  # type: ignore[misc]
    """A progress bar with a lock of this process only.

    tqdm's own lock is shared between processes, and a killed process leaves its semaphore behind.
    """


_Bar.set_lock(threading.RLock())


def progress_bar(
    *, total: int | None, unit: str, what: str, show: bool, note: str | None = None, after: float = 0
) -> Any:
    """Return a tqdm bar on standard error with items per second and, if ``total`` is known, the time left.

    It is silent unless ``show``, and in the first ``after`` seconds. ``note`` is shown at its end until it is replaced.
    """
    shown = sys.stderr  # None if it was closed before the program started
    interval = 15.0 if shown is None else _interval(shown)
    return _Bar(
        file=_Steady(shown),
        total=total,
        unit=unit,
        desc=what,
        disable=not show or shown is None,
        mininterval=interval,
        maxinterval=max(10.0, 2 * interval),  # after this many seconds tqdm's own thread prints: well after mininterval
        smoothing=0.05,
        postfix=note,
        delay=after,
    )


def _interval(stream: TextIO) -> float:
    """Return the seconds between two updates of a bar: few where it is drawn in place, many where each is a line."""
    if stream.isatty():
        return 0.2
    in_notebook = type(stream).__module__.startswith("ipykernel.")  # no terminal, but it draws in place, too
    return 1.0 if in_notebook else 15.0


def print_above(text: str, *, file: TextIO | None = None) -> None:
    """Print a line above any progress bars, on standard output unless ``file`` is given; nothing if that is closed.

    Raises:
        OSError: If it cannot be written.
    """
    file = file or sys.stdout
    if file is not None:
        _Bar.write(text, file=file)
        file.flush()


@contextmanager
def timed(spent: dict[str, float], what: str) -> Iterator[None]:
    """Add the seconds of wall time spent inside ``with`` to ``spent[what]``."""
    started = time.perf_counter()
    try:
        yield
    finally:
        spent[what] = spent.get(what, 0.0) + time.perf_counter() - started
