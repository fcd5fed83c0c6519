"""Start worker processes without running the caller's script in them again.

Python's own "spawn" imports the main script in each new process, with everything that the script imports, such as
torch, and therefore requires ``if __name__ == "__main__":`` there. This package's workers need only its modules, not
the script.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import wraps
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

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
