"""Decode clips in worker processes, so that a decoder that crashes or hangs costs only one clip."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from fitrec_cache.common.spawning import WorkerContext, begin_quietly
from fitrec_cache.errors import FitrecError, UsageError, VideoError
from fitrec_cache.video.spans import Span

#: How many times a job is tried again if its pool breaks before it has run.
_TRIES = 3

#: The time in which a worker starts even on a very busy machine.
_START_SECONDS = 60.0

#: Usual time limit for decoding one clip, in seconds.
TIME_LIMIT = 120.0

#: The niceness of decoder processes, which lowers their priority.
NICENESS = 5


@dataclass(frozen=True, kw_only=True)
class StoredClip:
    """The content of the frame store for one clip: T JPEG files, their frame numbers and times, and the decode ledger.

    ``seconds``, the processor time that decoding took, is not stored.
    """

    jpegs: list[bytes]
    frame_index: list[int]
    pts_seconds: list[float]
    ledger: dict[str, Any]
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """One clip to decode: its file, the number of samples ``T``, the largest short side in pixels, and the part."""

    path: Path
    samples: int
    short_side: int
    span: Span | None = None

    def __post_init__(self) -> None:
        given: Any = self.path
        if isinstance(given, str):
            object.__setattr__(self, "path", Path(given))


def check_time_limit(time_limit: float) -> None:
    """Raise :class:`UsageError` unless this is a time limit, in seconds, that can end a hanging decoder."""
    if not (math.isfinite(time_limit) and time_limit > 0):
        raise UsageError(f"time_limit is {time_limit}: expected a positive number of seconds")


def decode_clip(job: DecodeJob) -> StoredClip:
    """Decode, sample and encode one clip in this process.

    Raises:
        VideoError: If the clip cannot be used.
    """
    from fitrec_cache.video.jpeg import encode_frames
    from fitrec_cache.video.sampling import frame_indices
    from fitrec_cache.video.video import read_frames

    started = time.thread_time()
    sampler = partial(frame_indices, samples=job.samples)
    clip = read_frames(job.path, sampler=sampler, short_side=job.short_side, span=job.span)
    return StoredClip(
        jpegs=encode_frames(clip.frames),
        frame_index=clip.frame_index.tolist(),
        pts_seconds=clip.pts_seconds.tolist(),
        ledger=clip.ledger,
        seconds=time.thread_time() - started,
    )


def _begin() -> None:
    import fitrec_cache.video.jpeg
    import fitrec_cache.video.video  # noqa: F401 - before the first clip, whose time is limited

    # The threads that embed wait for each other, so a decoder that slows one of them slows all.
    os.nice(NICENESS)


def _work(job: DecodeJob) -> StoredClip | str:
    # A text is easier to pass between processes than an exception with its chain of causes.
    try:
        return decode_clip(job)
    except VideoError as error:
        return str(error)


def _ready() -> bool:
    return True


def _is_pools_fault(error: BaseException | None) -> bool:
    """Say whether a job failed because of its pool: the pool broke, or the worker gave up waiting for the pool's lock.

    A worker that gives up exits by itself, with a positive code; a crash is a signal, with a negative code.
    """
    return isinstance(error, BrokenProcessPool) or (isinstance(error, ProcessExpired) and error.exitcode > 0)


class DecoderPool:
    """Worker processes that decode clips; use as a context manager.

    Args:
        workers: Number of processes, at least 1.
        time_limit: Time limit for one clip, in seconds; a decoder that exceeds it is killed, and the clip is tried
            once more.

    Raises:
        FitrecError: If the workers cannot start.
    """

    def __init__(self, *, workers: int, time_limit: float) -> None:
        check_time_limit(time_limit)
        self._time_limit = time_limit
        self._workers = workers
        self._closed = False
        self._last_life = time.monotonic()
        self._renewing = threading.Lock()
        self._open: set[Any] = set()
        self._pool: Any = None
        try:
            self._pool, ready = self._new_pool()
            ready.result()
        except (ProcessExpired, RuntimeError, OSError) as error:
            self.__exit__()
            reason = getattr(error, "strerror", None)
            raise FitrecError(
                f"decoder processes cannot start{f' ({reason})' if reason else ''}: allow more processes (ulimit -u), "
                "open files (-n) or memory, and make /dev/shm writable"
            ) from error
        except BaseException:  # clean up in this case, too
            self.__exit__()
            raise

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        with self._renewing:  # otherwise a pool that is just being created would be left behind
            if self._pool is not None:
                self._pool.stop()
                self._pool.join()
        for future in tuple(self._open):
            future.cancel()  # releases those who wait for it

    def submit(self, job: DecodeJob) -> Callable[[], StoredClip | str]:
        """Queue a clip; call the returned function to wait for its frames, or for the reason why there are none.

        The caller limits memory use by queueing only a few clips at a time.
        """
        pool, future = self._schedule(job)
        return lambda: self._outcome(pool, future, job)

    def _new_pool(self) -> tuple[Any, Any]:
        """Return a new pool, and a future that is done when its first worker has started."""
        pool: Any = ProcessPool(max_workers=self._workers, context=WorkerContext(), initializer=_begin)
        try:
            return pool, begin_quietly(lambda: pool.schedule(_ready))
        except BaseException:  # such as Ctrl-C, after which a notebook's process continues
            pool.stop()
            pool.join()
            raise

    def _schedule(self, job: DecodeJob) -> tuple[Any, Any]:
        """Queue a job; return its pool and its future."""
        for _ in range(_TRIES):
            pool = self._pool
            try:
                future = pool.schedule(_work, args=[job], timeout=self._time_limit)
            except RuntimeError:
                self._renew(pool)
            else:
                self._open.add(future)
                future.add_done_callback(self._note_end)
                return pool, future
        raise FitrecError("decoder processes are killed from outside again and again; start again when that ends")

    def _renew(self, broken: Any) -> None:
        """Replace a pool that broke, as pebble's pools do when an idle worker is killed from outside."""
        with self._renewing:
            if self._pool is broken and not self._closed:
                broken.stop()
                broken.join()
                self._pool, _ = self._new_pool()

    def _note_end(self, future: Any) -> None:
        self._open.discard(future)
        self._last_life = time.monotonic()

    def _error(self, pool: Any, future: Any) -> BaseException | None:
        """Wait for the end of a job and return its error; a stuck pool counts as broken: its futures may never end.

        A worker that is killed while it holds the pool's lock leaves the others waiting forever. Every job ends within
        its time limit, so a pool in which none has ended for longer than that is stuck.
        """
        since = time.monotonic()
        while True:
            try:
                error: BaseException | None = future.exception(timeout=1)
                return error
            except TimeoutError:
                silent = time.monotonic() - max(self._last_life, since)
                if not pool.active or silent > self._time_limit + _START_SECONDS:
                    return BrokenProcessPool("the pool lost the job")

    def _outcome(self, pool: Any, future: Any, job: DecodeJob) -> StoredClip | str:
        error, late, faults = self._error(pool, future), 0, 0
        while not self._closed:
            if isinstance(error, TimeoutError) and not late:
                late += 1  # time also passes while a laptop sleeps or a network drive is away
            elif _is_pools_fault(error) and faults < _TRIES:
                faults += 1
                self._renew(pool)
            else:
                break
            pool, future = self._schedule(job)
            error = self._error(pool, future)
        if isinstance(error, TimeoutError):
            limit = f"within {self._time_limit:g} s (time-limit), twice"
            return f"decoder did not finish {limit}, and was stopped"
        if isinstance(error, ProcessExpired):
            return f"decoder crashed (exit code {error.exitcode})"
        if error is not None:  # an unexpected exception in a decoder costs one clip, too
            return f"decoder failed: {type(error).__name__}: {error}"
        result: StoredClip | str = future.result()
        return result
