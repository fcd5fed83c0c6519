"""Ctrl-C while processes start: the one in front hears it, and stops them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import TypeVar

from fitrec_cache.errors import FitrecError

Begun = TypeVar("Begun")


def begin_quietly(begin: Callable[[], Begun]) -> Begun:
    """Return ``begin()`` of a thread in which Ctrl-C and SIGHUP are blocked, as in all that it starts.

    A terminal sends them to all processes, and one that has yet to import what it needs would print where it was.

    Raises:
        FitrecError: If this process may start none.
    """
    with ThreadPoolExecutor(1, initializer=_block) as starter:
        try:
            return starter.submit(begin).result()
        except AssertionError as error:  # of multiprocessing itself, and none with python -O
            raise FitrecError(
                f"{error}. A worker of multiprocessing.Pool is one: call this in the main process, or in a worker of "
                "concurrent.futures.ProcessPoolExecutor"
            ) from error


def _block() -> None:
    resource_tracker.ensure_running()  # it begins by letting Ctrl-C through
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
