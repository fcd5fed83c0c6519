"""The same work on many items, in processes of their own that divide the cores between them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import torch
from pebble import ProcessExpired, ProcessPool

from fitrec_cache.errors import FitrecError

Common = TypeVar("Common")
Item = TypeVar("Item")
Found = TypeVar("Found")

#: What every call in a worker process is given first.
_common: Any = None


def map_in_processes(
    work: Callable[[Common, Item], Found],
    common: Common,
    items: Sequence[Item],
    *,
    processes: int,
    threads: int,
    advance: Callable[[], object] = lambda: None,
) -> list[Found]:
    """Return ``work(common, item)`` of each item, in order; what ``work`` raises is raised here.

    Args:
        work: A function of a module, as it must be found by other processes.
        common: What all items need; sent to each process once.
        items: Sent one at a time.
        processes: At most this many at once.
        threads: Of torch in each process.
        advance: Called after each item.

    Raises:
        FitrecError: If a process cannot start or is killed.
    """
    # Not "fork": this process has threads (torch, HDF5) by now.
    pool: Any = ProcessPool(
        max_workers=min(processes, len(items)),
        context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=[common, threads],
    )
    found = []
    try:
        with ThreadPoolExecutor(1, initializer=_keep_interrupts_off) as starter:
            futures = starter.submit(lambda: [pool.schedule(_call, args=[work, item]) for item in items]).result()
        for future in futures:
            found.append(future.result())
            advance()
    except (ProcessExpired, BrokenProcessPool) as error:
        code = getattr(error, "exitcode", None)  # a pool that could not begin has none
        raise FitrecError(
            f"a process ended{f' with code {code}' * (code is not None)}: too little memory, or killed. What was "
            "finished before is kept; go on with --jobs 1. In a script, call this under `if __name__ == '__main__':`"
        ) from error
    finally:
        if len(found) < len(items):
            pool.stop()
        else:  # processes that end by themselves clean up after themselves
            pool.close()
        pool.join()
    return found


def _keep_interrupts_off() -> None:
    """Block Ctrl-C in this thread, and so in all processes and threads that it starts.

    A terminal sends it to all processes, and one that has yet to import what it needs would print where it was. The
    main thread hears it, and stops them.
    """
    resource_tracker.ensure_running()  # it begins by letting Ctrl-C through
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _begin(common: Any, threads: int) -> None:
    global _common
    _common = common
    torch.set_num_threads(threads)


def _call(work: Callable[[Any, Any], Any], item: Any) -> Any:
    return work(_common, item)
