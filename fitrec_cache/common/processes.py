"""Apply one function to many items in worker processes that divide the cores between them."""

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

from fitrec_cache.common.spawning import WorkerContext, begin_quietly
from fitrec_cache.errors import FitrecError

Common = TypeVar("Common")
Item = TypeVar("Item")
Found = TypeVar("Found")

#: Where Linux shows the open files of a process.
_PROC = Path("/proc/self/fd")

#: In a worker process: the first argument of every call.
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
    """Return ``work(common, item)`` for each item, in order; exceptions raised by ``work`` are raised here.

    Args:
        work: A function that the worker processes can import: one of a module, not of the running script.
        common: The data that all items need; each process reads it once from a temporary file.
        items: The items, sent one at a time.
        processes: The largest number of processes at the same time.
        threads: Number of torch threads in each process.
        advance: Called after each item.

    Raises:
        FitrecError: If a process cannot start or is killed, or the disk has no room for the file.
    """
    with _laid_down(common) as path:
        context = WorkerContext()
        with _said_if_they_cannot_start():
            pool: Any = ProcessPool(
                max_workers=min(processes, len(items)),
                context=context,
                initializer=_begin,
                initargs=[path, threads],
            )
        found = []
        try:
            with _said_if_they_cannot_start():
                futures = begin_quietly(lambda: [pool.schedule(_call, args=[work, item]) for item in items])
            for future in futures:
                found.append(future.result())
                advance()
        except (ProcessExpired, BrokenProcessPool) as error:
            code = getattr(error, "exitcode", None)  # a pool that could not start has none
            raise FitrecError(
                f"a process ended{f' with code {code}' * (code is not None)}: too little memory, too few processes or "
                "open files allowed (ulimit -u, -n), or killed. What was finished before is kept; go on with --jobs 1, "
                "also where clips in memory are of a class of the script that runs"
            ) from error
        finally:
            if len(found) < len(items):
                pool.stop()
                for process in list(context.processes):  # all at once: the pool would end them one after another
                    if process.is_alive():
                        process.terminate()
            else:  # processes that end by themselves clean up after themselves
                pool.close()
            pool.join()
    return found


@contextmanager
def _said_if_they_cannot_start() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FitrecError(
            f"processes cannot be started ({error.strerror}): allow more (ulimit -u) or more open files (-n), make "
            "/dev/shm writable, or go on with --jobs 1"
        ) from error


@contextmanager
def _laid_down(common: object) -> Iterator[str]:
    """Keep the common data in a file that each worker process reads.

    If it were sent to the processes, each could start only after the previous one had imported torch.
    """
    with ExitStack() as stack:
        try:
            # Where there is /proc it has no other name, so it disappears with this process even if that is killed.
            make = tempfile.TemporaryFile if _PROC.is_dir() else tempfile.NamedTemporaryFile
            file = stack.enter_context(make())
            pickle.dump(common, file, protocol=5)
            file.flush()
        except OSError as error:
            raise FitrecError(
                f"what the processes are given cannot be written to a temporary file: {error.strerror}. Make room, "
                "name another folder (environment variable TMPDIR), or go on with --jobs 1"
            ) from error
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}" if _PROC.is_dir() else file.name


def _begin(common: str, threads: int) -> None:
    global _common
    threading.Thread(target=_end_with, args=[multiprocessing.parent_process()], daemon=True).start()
    torch.set_num_threads(threads)
    with Path(common).open("rb") as file:
        _common = pickle.load(file)


def _end_with(parent: BaseProcess | None) -> None:
    """End this process when its parent ends: otherwise abandoned work would compete with that of the next call."""
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(work: Callable[[Any, Any], Any], item: Any) -> Any:
    return work(_common, item)
