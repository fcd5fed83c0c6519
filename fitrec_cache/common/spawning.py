"""Start worker processes: without running the caller's script in them again, and so that Ctrl-C reaches only this one.

Python's own "spawn" imports the main script in each new process, with everything that the script imports, such as
torch, and therefore requires ``if __name__ == "__main__":`` there. This package's workers need only its modules, not
the script.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from multiprocessing import resource_tracker, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from fitrec_cache.errors import FitrecError

Begun = TypeVar("Begun")

_this_thread = threading.local()


@wraps(spawn.get_preparation_data)
def _without_script(name: str, usual: Callable[[str], dict[str, Any]] = spawn.get_preparation_data) -> dict[str, Any]:
    """Replace the function that Python calls at each start, so that this package's workers start without the script.

    Processes that other code starts, also in other threads, are prepared as usual. ``usual`` belongs to this function,
    not to the module: if that is loaded again, as by a notebook's autoreload, it would otherwise call itself.
    """
    told = usual(name)
    if getattr(_this_thread, "starts_a_worker", False):
        for key in ("init_main_from_name", "init_main_from_path"):
            told.pop(key, None)
    return told


spawn.get_preparation_data = _without_script


class _Worker(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        _this_thread.starts_a_worker = True
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            _this_thread.starts_a_worker = False


class WorkerContext(SpawnContext):
    """A :mod:`multiprocessing` context whose processes do not import the main script or know its functions.

    It is not based on "fork": a process with threads (torch, HDF5) must not fork.

    Attributes:
        processes: The processes made by this context, as far as they are still referred to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes = weakref.WeakSet[SpawnProcess]()

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        """Return a new process, not yet started."""
        process = _Worker(*args, **kwargs)
        self.processes.add(process)
        return process


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
    with ThreadPoolExecutor(1) as starter:
        return starter.submit(_quietly, begin).result()


def _quietly(begin: Callable[[], Begun]) -> Begun:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # also for Python's tracker, which ignores only Ctrl-C
    resource_tracker.ensure_running()  # starting it unblocks Ctrl-C, so it must run before that is blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return begin()
