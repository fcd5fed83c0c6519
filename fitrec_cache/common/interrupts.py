"""Start processes so that Ctrl-C reaches only this process, which then stops them."""

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
    """Return ``begin()``, run in a thread that blocks Ctrl-C and SIGHUP; processes started there inherit this.

    A terminal sends these signals to all processes, and one that is still importing its modules would print a
    traceback.

    Raises:
        FitrecError: If this process may not start others.
    """
    if multiprocessing.current_process().daemon:
        raise FitrecError(
            "daemonic processes, such as workers of multiprocessing.Pool, are not allowed to have children: call this "
            "in the main process, or in a worker of concurrent.futures.ProcessPoolExecutor"
        )
    with ThreadPoolExecutor(1, initializer=_block) as starter:
        return starter.submit(begin).result()


def _block() -> None:
    resource_tracker.ensure_running()  # starting it unblocks Ctrl-C, so it must run before the signals are blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
