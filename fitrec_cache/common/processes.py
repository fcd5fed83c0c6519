"""The same work on many items, in processes of their own that divide the cores between them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
from pebble import ProcessExpired, ProcessPool

from fitrec_cache.common.interrupts import begin_quietly
from fitrec_cache.common.spawning import WorkerContext
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
        work: A function of a module, as it must be found by other processes; one of the script that runs is not.
        common: What all items need; each process reads it once from a temporary file.
        items: Sent one at a time.
        processes: At most this many at once.
        threads: Of torch in each process.
        advance: Called after each item.

    Raises:
        FitrecError: If a process cannot start or is killed, or there is no room for the file.
    """
    with _laid_down(common) as path:
        others = set(multiprocessing.active_children())
        pool: Any = ProcessPool(
            max_workers=min(processes, len(items)),
            context=WorkerContext(),
            initializer=_begin,
            initargs=[path, threads],
        )
        found = []
        try:
            futures = begin_quietly(lambda: [pool.schedule(_call, args=[work, item]) for item in items])
            for future in futures:
                found.append(future.result())
                advance()
        except (ProcessExpired, BrokenProcessPool) as error:
            code = getattr(error, "exitcode", None)  # a pool that could not begin has none
            raise FitrecError(
                f"a process ended{f' with code {code}' * (code is not None)}: too little memory, or killed. What "
                "was finished before is kept; go on with --jobs 1, also where clips in memory are of a class of the "
                "script that runs"
            ) from error
        finally:
            if len(found) < len(items):
                pool.stop()
                mine = set(multiprocessing.active_children()) - others
                for process in mine:  # at once: the pool ends one after another
                    process.terminate()
            else:  # processes that end by themselves clean up after themselves
                pool.close()
            pool.join()
    return found


@contextmanager
def _laid_down(common: object) -> Iterator[str]:
    """Keep what all processes need in a file: sent along, each could start only when the last has imported torch."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile())  # it has no name, and so is gone with this process
            pickle.dump(common, file, protocol=5)
            file.flush()
        except OSError as error:
            raise FitrecError(
                f"what the processes are given cannot be written to a temporary file: {error.strerror}. Make room, "
                "name another folder (environment variable TMPDIR), or go on with --jobs 1"
            ) from error
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _begin(common: str, threads: int) -> None:
    global _common
    threading.Thread(target=_end_with, args=[multiprocessing.parent_process()], daemon=True).start()
    torch.set_num_threads(threads)
    with Path(common).open("rb") as file:
        _common = pickle.load(file)


def _end_with(parent: BaseProcess | None) -> None:
    """End this process with its parent: work that nobody waits for would meet that of the next call."""
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(work: Callable[[Any, Any], Any], item: Any) -> Any:
    return work(_common, item)
