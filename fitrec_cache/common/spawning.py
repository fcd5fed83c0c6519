"""New processes that begin with nothing of this one: the script that starts them is not run in them again.

Python's own way imports it in each, with all that it imports, such as torch, and so needs ``if __name__ ==
"__main__":`` there. Workers of this program are told what to do by modules, and need no script.
"""

from __future__ import annotations

import threading
from functools import wraps
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

_this_thread = threading.local()
_preparation = spawn.get_preparation_data


@wraps(_preparation)
def _without_script(name: str) -> dict[str, Any]:
    """Stand in for what Python asks at each start: other programs' processes, also of other threads, get all."""
    told = _preparation(name)
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
    """A context of :mod:`multiprocessing` in which processes start as said above; functions in the script are unknown.

    Not "fork": a process that has threads (torch, HDF5) must not.
    """

    Process = _Worker
