"""Prepare clips ahead of embedding: hash the file, decode and resize, while other clips are being embedded."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from fitrec_cache.backbones.backbone import Backbone
from fitrec_cache.common.devices import cores
from fitrec_cache.common.files import Stamp, file_stamp
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.errors import VideoError
from fitrec_cache.storage.store import Store
from fitrec_cache.video.contents import content_hash, content_hash_once
from fitrec_cache.video.decoding import DecodeJob, DecoderPool, StoredClip
from fitrec_cache.video.jpeg import decode_frames

#: Clips in preparation per core. If preparing and embedding take turns, there are enough that waiting for the last clip
#: of a turn hardly matters.
_CLIPS_IN_TURN, _CLIPS_BESIDE = 8, 2

#: The greatest number of clips in preparation; each takes some 3 MB per backbone.
_MOST_CLIPS = 64


@dataclass(frozen=True)
class Prepared:
    """A clip that is ready to be embedded.

    Attributes:
        decoded: The decoded clip, for the frame store; None if the store already holds it.
        pts_seconds: The times of the T frames.
        inputs: The input of each backbone that has yet to embed the clip, by the backbone's number.
    """

    decoded: StoredClip | None
    pts_seconds: Sequence[float]
    inputs: Mapping[int, Tensor]


@dataclass(frozen=True)
class Task:
    """A clip in preparation.

    Attributes:
        clip: The clip.
        key: The sha256 of the file, followed by the times if the clip is a part of it; empty if it cannot be read.
        problem: Why the clip cannot be used; empty if it can.
        stamp: The file's stamp (size, time, inode) before it was read.
        coming: The prepared clip, or why it cannot be prepared; None if nothing needs to be done, or that is not known
            yet.
    """

    clip: Clip
    key: str
    problem: str = ""
    stamp: Stamp | None = None
    coming: Future[Prepared | str] | None = None


class Prefetcher:
    """Helper threads and decoder processes of one extraction; use as a context manager.

    Args:
        models: The backbones.
        frames: The frame store, from which clips that it holds are read.
        known: The content hash, by clip id, of clips without a file.
        workers: Number of decoder processes, started when the first clip is decoded. 0: nothing is decoded.
        time_limit: Time limit for decoding one clip.

    Attributes:
        decodes: Whether clips may be decoded.
        busy: Seconds of work by kind, summed over threads and processes.
        in_turns: Whether preparing and embedding take turns, as they do if both use the same cores: the threads of a
            network wait for each other, so a decoder that slows one of them slows all. With a GPU both run at once.
        distance: How many clips may be in preparation at once.
    """

    def __init__(
        self,
        models: Sequence[Backbone],
        frames: Store,
        known: Mapping[str, str],
        *,
        workers: int,
        time_limit: float,
    ) -> None:
        self._models, self._frames, self._known = models, frames, known
        self._workers, self._time_limit, self.decodes = workers, time_limit, workers > 0
        self._lock = threading.Lock()
        self.busy = {"hash": 0.0, "decode": 0.0, "prepare": 0.0}
        self.in_turns = any(m.on_cpu for m in models)
        n_cores = workers or cores()
        beside_decoders = self.decodes and not self.in_turns
        self.distance = min(_MOST_CLIPS, (_CLIPS_IN_TURN if self.in_turns else _CLIPS_BESIDE) * n_cores)
        self._stack = ExitStack()
        self._hashing = self._threads("hash", 2)
        self._preparing = self._threads("prepare", max(1, n_cores // 2) if beside_decoders else n_cores)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()  # closes the decoders first, so that no thread waits for them

    def _threads(self, name: str, count: int) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._stack.callback(pool.shutdown, cancel_futures=True)
        return pool

    def hashes(self, clips: Iterable[Clip]) -> Iterator[Task]:
        """Yield clips in order, with the hash of their content."""
        queue: deque[Future[Task]] = deque()
        for clip in clips:
            queue.append(self._hashing.submit(self._hash, clip))
            if len(queue) > 2 * self.distance:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()

    def _hash(self, clip: Clip) -> Task:
        path = clip.path
        if path is None:
            return Task(clip, self._known[clip.clip_id])
        try:
            with self._timed("hash", time.perf_counter):
                stamp = file_stamp(path)
                if clip.span is None:
                    return Task(clip, content_hash(path), stamp=stamp)
                return Task(clip, f"{content_hash_once(path, stamp)}{clip.span}", stamp=stamp)
        except VideoError as error:
            return Task(clip, "", problem=str(error))

    @cached_property
    def _decoders(self) -> DecoderPool:
        return self._stack.enter_context(DecoderPool(workers=self._workers, time_limit=self._time_limit))

    def submit(self, task: Task, todo: Sequence[int]) -> Future[Prepared | str]:
        """Start preparing a clip for the backbones ``todo``; the result is the reason, as text, if that fails.

        Its frames come from the frame store, or else are decoded from its video.
        """
        path, identity = task.clip.path, self._frames.identity
        decode = None
        if task.key not in self._frames and self.decodes and path is not None:
            samples, short_side = identity["samples"], identity["short_side"]
            job = DecodeJob(path=path, samples=samples, short_side=short_side, span=task.clip.span)
            decode = partial(self._decoded, path, task.stamp, self._decoders.submit(job))
        return self._preparing.submit(self._prepare, task, todo, decode)

    def _decoded(self, path: Path, stamp: Stamp | None, wait: Callable[[], StoredClip | str]) -> StoredClip | str:
        """Wait for a clip that is being decoded; its file must still have the stamp that it had before it was read."""
        decoded, now = wait(), file_stamp(path)
        gone = now is None and isinstance(decoded, str)  # then the decoder knows the reason
        if now != stamp and not gone:
            return "its file changed while it was read, as one does that is still being copied: extract it again"
        if not isinstance(decoded, str):
            with self._lock:
                self.busy["decode"] += decoded.seconds
        return decoded

    def _prepare(
        self, task: Task, todo: Sequence[int], decode: Callable[[], StoredClip | str] | None
    ) -> Prepared | str:
        """Make a clip ready; without ``decode`` its frames come from the frame store."""
        decoded = None if decode is None else decode()
        if isinstance(decoded, str):
            return decoded
        with self._timed("prepare", time.thread_time):
            if decoded is None:
                jpegs, times = self._frames.jpegs(task.key), self._frames.row(task.key)["pts_seconds"].tolist()
            else:
                jpegs, times = decoded.jpegs, decoded.pts_seconds
            inputs = {}
            if todo:
                pictures = decode_frames(jpegs)
                inputs = {i: self._models[i].prepare(pictures) for i in todo}
        return Prepared(decoded, times, inputs)

    @contextmanager
    def _timed(self, kind: str, clock: Callable[[], float]) -> Iterator[None]:
        started = clock()
        try:
            yield
        finally:
            with self._lock:
                self.busy[kind] += clock() - started
