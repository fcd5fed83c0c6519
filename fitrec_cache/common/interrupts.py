"""Ctrl-C while processes start: the one in front hears it, and stops them."""

from __future__ import annotations

import multiprocessing
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
    if multiprocessing.current_process().daemon:
        raise FitrecError(
            "daemonic processes, such as workers of multiprocessing.Pool, are not allowed to have children: call this "
            "in the main process, or in a worker of concurrent.futures.ProcessPoolExecutor"
        )
    with ThreadPoolExecutor(1, initializer=_block) as starter:
        return starter.submit(begin).result()


def _block() -> None:
    resource_tracker.ensure_running()  # it begins by letting Ctrl-C through
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
