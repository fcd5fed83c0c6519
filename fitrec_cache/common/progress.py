"""What long work shows: notes at once, a bar (on a terminal; a line now and then in a log), where its time went."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm
from tqdm.utils import ObjectWrapper


@dataclass
class Notes:
    """What a person should know, in order; each is told as soon as it is known, if anybody listens."""

    tell: Callable[[str], None] | None = None
    texts: list[str] = field(default_factory=list)

    def add(self, *texts: str) -> None:
        """Take further notes."""
        for text in texts:
            self.texts.append(text)
            if self.tell is not None:
                self.tell(text)

    def add_new(self, text: str) -> None:
        """Take a further note, unless it was taken before."""
        if text not in self.texts:
            self.add(text)


class _Steady(ObjectWrapper):  # type: ignore[misc]
    """A stream that fails without a word, as one to a full disk: what is shown is no reason to stop the work."""

    def __eq__(self, other: object) -> bool:  # by which tqdm knows that what is printed goes to the same terminal
        return bool(self._wrapped == getattr(other, "_wrapped", other))

    __hash__ = None  # type: ignore[assignment]

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._wrapped.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._wrapped.flush()


class _Bar(tqdm):  # type: ignore[misc]
    """A bar of this process alone.

    tqdm's own share a lock between processes, and a process that is killed leaves its semaphore behind.
    """


_Bar.set_lock(threading.RLock())


def progress_bar(*, total: int | None, unit: str, what: str, show: bool, note: str | None = None) -> Any:
    """Return a tqdm bar on standard error: clips a second, time left if ``total`` is known; silent unless ``show``.

    ``note`` stands behind it until it is replaced.
    """
    shown = sys.stderr  # None if it was closed before the start
    interval = 0.2 if shown is not None and shown.isatty() else 15.0
    return _Bar(
        file=_Steady(shown),
        total=total,
        unit=unit,
        desc=what,
        disable=not show or shown is None,
        mininterval=interval,
        maxinterval=max(10.0, 2 * interval),  # tqdm's own thread prints after so many seconds: well after the other
        smoothing=0.05,
        postfix=note,
    )


def print_above(text: str) -> None:
    """Print a line on standard output, if there is one, above bars that are shown.

    Raises:
        OSError: If it cannot be written.
    """
    if sys.stdout is not None:
        _Bar.write(text, file=sys.stdout)
        sys.stdout.flush()


@contextmanager
def timed(spent: dict[str, float], what: str) -> Iterator[None]:
    """Add the seconds of wall time spent inside ``with`` to ``spent[what]``."""
    started = time.perf_counter()
    try:
        yield
    finally:
        spent[what] = spent.get(what, 0.0) + time.perf_counter() - started
