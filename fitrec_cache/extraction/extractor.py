"""The main loop of `extract`: receive decoded frames, embed them, commit the results."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.backbones.backbone import Backbone
from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, newest
from fitrec_cache.common.cpu_contention import CpuContention
from fitrec_cache.common.devices import cores
from fitrec_cache.common.files import may_be_there
from fitrec_cache.common.progress import Notes, progress_bar, timed
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.dataset.find_clips import ClipList
from fitrec_cache.errors import StoreError, VideoError
from fitrec_cache.extraction.claims import CLAIMS, Claims
from fitrec_cache.extraction.entries import EntryBuilder
from fitrec_cache.extraction.extract_report import ExtractReport, FailedClip
from fitrec_cache.extraction.identity import feature_identity, what_changed
from fitrec_cache.extraction.prefetch import Prefetcher, Prepared, Task
from fitrec_cache.storage.parts import joined, text_column
from fitrec_cache.storage.store import Store
from fitrec_cache.video.decoding import StoredClip
from fitrec_cache.video.spans import file_of, is_part
from fitrec_cache.wording import plural, some

#: A part is committed after this many clips or seconds, whichever comes first; a kill can cost this much work.
COMMIT_CLIPS = 32
COMMIT_SECONDS = 30.0

_STAGES = ("compile", "wait for files", "wait for frames", "wait for others", "embed", "write")


@dataclass
class _Rows:
    """Finished clips that have not been committed yet."""

    since: float = field(default_factory=time.monotonic)
    seen: list[tuple[Clip, str, str]] = field(default_factory=list)  # (clip, key, problem): may need an entry
    clips: list[HeldClip] = field(default_factory=list)
    frames: dict[str, StoredClip] = field(default_factory=dict)
    features: list[dict[str, tuple[Any, Any]]] = field(default_factory=list)
    done: int = 0

    def pending(self) -> int:
        """Return how many clips a commit would write."""
        return max(len(self.seen), len(self.clips), len(self.frames), *map(len, self.features))


@dataclass
class _Nobody:
    """In how many frames a network of poses found nobody, and the clips in no frame of which it found somebody."""

    frames: int = 0
    of: int = 0
    clips: list[str] = field(default_factory=list)

    def add(self, clip_id: str, features: NDArray[np.float16]) -> None:
        """Count the frames of a clip by its features ``(T, d)``."""
        none = int((~features.any(axis=1)).sum())
        self.frames, self.of = self.frames + none, self.of + len(features)
        self.clips += [clip_id] * (none == len(features))

    def note(self, name: str) -> str:
        """Return what to tell a user."""
        whole = f", and in no frame of {plural(len(self.clips), 'clip')}: {some(self.clips)}" if self.clips else ""
        return f"{name} found nobody in {self.frames} of {self.of} frames{whole}"


class Extractor:
    """The state of one extraction: what is done, what is not committed yet, and notes for the user."""

    def __init__(
        self, cache: Cache, frames: Store, models: Sequence[Backbone], notes: Notes, found: ClipList, *, started: float
    ) -> None:
        self.cache, self.frames, self.models, self.notes, self.found = cache, frames, models, notes, found
        self.started, self.stages = started, {"start": time.perf_counter() - started} | dict.fromkeys(_STAGES, 0.0)
        self._contention = CpuContention(cores())
        self.asked = [clip.clip_id for clip in found.clips]
        self.begun = False
        self.stores = [cache.feature_store(feature_identity(frames.identity, m)) for m in models]
        self.entering = EntryBuilder(cache, found, self.stores)
        for store, model in zip(self.stores, models, strict=True):
            notes.add(*_new_features(cache, store))
            with suppress(StoreError):  # the cache may be read-only
                store.write_origin(store.origin() | {"weights": model.origin()["weights"]})  # they may have moved
        self.begun_with: dict[str, Clip] = {}  # by content: clips in preparation, and those that failed
        self.rows = self._new_rows()
        self.done = self.reused = 0
        self.failed: list[FailedClip] = []
        self.unread: list[str] = []  # clips whose files may exist but could not be read
        self.odd: list[str] = []  # clips with slightly faulty files, and what was wrong
        self.nobody = {m.name: _Nobody() for m in models if m.preprocessing.sees_poses}
        self.beside: dict[str, float] = {}

    def _new_rows(self) -> _Rows:
        return _Rows(features=[{} for _ in self.models])

    def work(self, prefetcher: Prefetcher, *, progress: bool) -> None:
        """Process every clip from video to features; commit what is finished, even when interrupted."""
        self.beside = prefetcher.busy
        bar = progress_bar(total=len(self.asked), unit="clip", what="extract", show=progress)
        self.claims = Claims(
            self.cache.folder / CLAIMS,
            self.found.clips,
            size=COMMIT_CLIPS,
            purpose="\n".join(s.folder.name for s in (self.frames, *self.stores)),
            refresh=self.refresh,
        )
        try:
            with bar:
                while self._more(bar):
                    for task in self._tasks(prefetcher):
                        self._one(task)
                        self.claims.finished(task.clip)
                        bar.set_postfix_str(self._so_far(), refresh=False)
                        bar.update()
                        if self.rows.pending() >= COMMIT_CLIPS or time.monotonic() - self.rows.since > COMMIT_SECONDS:
                            self.commit()
                    self.commit()
            if prefetcher.decodes:  # otherwise no entries are written
                self._settle_names()
                self.commit()
                self.cache.finish(self.asked)
        except StoreError:  # such as a full disk: a second try mostly fails for the same reason
            with suppress(StoreError):
                self.commit()
            raise
        except BaseException:
            self.commit()
            raise
        finally:
            self.claims.close()

    def _settle_names(self) -> None:
        """Of several clips with one content, write the first by name last: the latest entry is the one that is used."""
        same = self.cache.same_content()
        asked = set(self.asked) if same else set()
        failed = {each.clip_id for each in self.failed}  # what the cache has under their names is no longer there
        told: dict[tuple[str, str, bool], list[tuple[HeldClip, HeldClip]]] = {}
        for held in same:
            held.sort(key=lambda clip: clip.clip_id)
            clips = sorted((clip for clip in held if clip.clip_id in asked), key=lambda clip: clip.clip_id in failed)
            if not clips:
                continue
            first = self.entering.of_one_content(clips)
            if newest(held)[first.video_sha256] != first:
                self.rows.clips.append(first)
            for other in clips[1:]:
                apart = other.group not in (None, first.group)
                told.setdefault((first.label, other.label, apart), []).append((first, other))
        self.notes.add(*(_same_content(*pairs[0], more=len(pairs) - 1) for pairs in told.values()))

    def see_to_others(self, *, prune: str | None) -> None:
        """Add notes on clips of the cache that were not asked for, such as removed files, or take such clips out.

        Args:
            prune: The latest ``since`` in the cache when files were listed: clips that were entered until then and
                that VIDEOS does not name are taken out. None: no clip is taken out.
        """
        (others, here), there = self.cache.others(self.asked), {clip.clip_id for clip in self.found.passed_over}
        absent = [c for c in others if c.clip_id not in there and (prune is None or c.since <= prune)]
        # An earlier name of a content that is present does not count as a clip of its own.
        gone = [clip for clip in absent if clip.video_sha256 not in here and not clip.problem]
        if prune is None:
            self.entering.groups_known |= any(clip.group is not None for clip in others)
            self._note_left(gone, {file_of(key) for key in here})
        else:
            self.cache.finish_all(but=there)
            self.rows.clips += [replace(clip, problem=TAKEN_OUT) for clip in absent]
            self.commit()
            self.entering.groups_known |= any(clip.group is not None for clip in others if clip.clip_id in there)
            if names := sorted(clip.clip_id for clip in gone):
                self.notes.add(f"removed, as not among these videos: {plural(len(names), 'clip')}: {some(names)}")
        if kept := sorted(clip.clip_id for clip in others if clip.clip_id in there and not clip.problem):
            many = plural(len(kept), "clip of the cache was", "clips of the cache were")
            but = "except what its --classes leaves out"
            self.notes.add(f"{many} not asked for this time; train-head uses them too, {but}: {some(kept)}")

    def _note_left(self, gone: Sequence[HeldClip], files: Collection[str]) -> None:
        """Add notes on clips that training uses although they were not asked for; ``files`` are those asked for."""
        stale = sorted(c.clip_id for c in gone if is_part(c.video_sha256) and file_of(c.video_sha256) in files)
        if stale:
            self.notes.add(
                f"training will still use {plural(len(stale), 'part')} of these files no longer listed: {some(stale)}"
            )
        if names := sorted({clip.clip_id for clip in gone}.difference(stale)):
            self.notes.add(
                f"training will also use {plural(len(names), 'clip')} of the cache not among these videos: "
                f"{some(names)}. If that is not meant, `extract --prune` removes {plural(len(gone), 'clip')}"
            )

    def tell_changes(self, *, erased: bool) -> None:
        """Add notes on files that are used although something is wrong, on frames without anybody, and on changes."""
        if self.odd:
            many = plural(len(self.odd), "clip is", "clips are")
            self.notes.add(f"{many} used though the file is not quite in order: {some(self.odd)}")
        self.notes.add(*(each.note(name) for name, each in self.nobody.items() if each.frames))
        self.notes.add(*self.entering.notes(erased=erased))

    def _more(self, bar: Any) -> bool:
        """Say whether clips are left; while other processes have claimed all of them, wait and show that."""
        with timed(self.stages, "wait for others"):
            left = self.claims.more(lambda n: _show_waiting(bar, f"{n} clips left to other processes, waiting"))
        bar.set_postfix_str(self._so_far(), refresh=False)
        return left

    def _so_far(self) -> str:
        return f"{len(self.failed)} failed" if self.failed else ""

    def _tasks(self, prefetcher: Prefetcher) -> Iterator[Task]:
        """Yield tasks in order, while later clips are being prepared or in turns with preparing."""
        queue: deque[Task] = deque()
        hashes = prefetcher.hashes(self.claims)
        while True:
            with timed(self.stages, "wait for files"):
                hashed = next(hashes, None)
            if hashed is None:
                break
            queue.append(self._begun(hashed, prefetcher))
            if len(queue) > prefetcher.distance:
                yield from self._ready(queue, len(queue) if prefetcher.in_turns else 1)
        while queue:
            yield from self._ready(queue, len(queue) if prefetcher.in_turns else 1)

    def _ready(self, queue: deque[Task], count: int) -> list[Task]:
        """Take the first tasks once all of them are prepared; finished clips are committed in time meanwhile."""
        tasks = [queue.popleft() for _ in range(count)]
        pending = {task.coming for task in tasks if task.coming is not None}
        while pending:
            with timed(self.stages, "wait for frames"):
                pending = wait(pending, timeout=COMMIT_SECONDS).not_done
            self.claims.alive()
            if pending and self.rows.pending():  # a slow clip must not delay the commit of others
                self.commit()
        return tasks

    def _begun(self, task: Task, prefetcher: Prefetcher) -> Task:
        """Return the task after starting its preparation, if it needs any."""
        key = task.key
        if task.problem:
            return task
        todo = self._todo(key)
        has_frames = key in self.frames or key in self.rows.frames
        if key in self.begun_with or (has_frames and not todo):
            return task
        if not has_frames and not prefetcher.decodes:
            problem = "its frames are not in the cache: give VIDEOS to decode it again" if todo else ""
            return replace(task, problem=problem)
        self.begun_with[key] = task.clip
        with timed(self.stages, "start"):  # of the decoders, by the first clip that needs them
            return replace(task, coming=prefetcher.submit(task, todo))

    def _todo(self, key: str) -> list[int]:
        """Return the numbers of the backbones that have not embedded a clip yet."""
        return [i for i, s in enumerate(self.stores) if key not in s and key not in self.rows.features[i]]

    def _one(self, task: Task) -> None:
        problem, worked = task.problem, False
        beside = ""  # the other clip that failed with the same content
        if task.coming is not None:
            prepared = task.coming.result()
            if isinstance(prepared, str):
                problem = prepared
            else:
                problem, worked = self._embed(task.key, prepared)
                warnings = prepared.decoded.ledger["warnings"] if prepared.decoded and not problem else []
                self.odd += [f"{task.clip.clip_id} ({'; '.join(warnings)})"] if warnings else []
            if not problem:
                del self.begun_with[task.key]
        elif not problem and self._todo(task.key):
            first = self.begun_with[task.key].clip_id
            problem = next(failed.reason for failed in self.failed if failed.clip_id == first)
            beside = f"same content as {first}, which failed: "
        if problem:
            if not task.key and task.clip.path is not None and may_be_there(task.clip.path):
                self.unread.append(task.clip.clip_id)
            path = str(task.clip.path or "")
            self.failed.append(FailedClip(clip_id=task.clip.clip_id, path=path, reason=beside + problem))
        else:
            self.rows.done += worked
            self.reused += not worked
        found = task.clip, task.key, problem
        if task.clip.path is not None and not self.entering.holds(*found):  # a clip from the cache itself is not new
            self.rows.seen.append(found)

    def _embed(self, key: str, prepared: Prepared) -> tuple[str, bool]:
        """Embed one clip with every backbone that has not embedded it yet.

        Returns:
            Why that failed (empty if it did not), and whether there was anything to do.
        """
        worked = False
        if prepared.decoded is not None and key not in self.frames:
            self.rows.frames[key] = prepared.decoded
            worked = True
        for i in self._todo(key):
            model, x = self.models[i], prepared.inputs[i]
            with timed(self.stages, "compile"):
                model.compile_for(len(x))
            try:
                with timed(self.stages, "embed"):
                    features = model.embed_prepared(x)
            except VideoError as error:
                return str(error), worked
            self.rows.features[i][key] = (features, np.asarray(prepared.pts_seconds))
            if model.name in self.nobody:
                self.nobody[model.name].add(self.begun_with[key].clip_id, features)
            worked = True
        return "", worked

    def commit(self) -> None:
        """Write finished clips: frames, then features, then the clips' entries. Only committed clips count as done."""
        rows = self.rows
        with timed(self.stages, "write"):
            if rows.frames:
                if not self.begun:  # mark the cache: until the end of this run it may be incomplete
                    self.cache.begin(self.asked)
                    self.begun = True
                self.frames.write_part(_frame_arrays(rows.frames))
                rows.frames = {}
            for i, (store, model) in enumerate(zip(self.stores, self.models, strict=True)):
                if rows.features[i]:
                    store.write_part(_feature_arrays(rows.features[i]))
                    rows.features[i] = {}
                    store.write_origin(model.origin())
            if rows.seen:
                self.cache.clip_store.refresh()  # other processes may have written entries of these clips meanwhile
            while rows.seen:
                if entry := self.entering.entry(*rows.seen[0]):
                    rows.clips.append(entry)
                del rows.seen[0]
            if rows.clips:
                self.cache.write_clips(rows.clips)
            self.done += rows.done
            self.rows = self._new_rows()  # rows that an interruption leaves in the old ones go into the next commit
            self.claims.committed()
            self.write_indexes()

    def write_indexes(self, *, at_end: bool = False) -> None:
        """Write indexes of what was committed; see :meth:`fitrec_cache.storage.store.Store.write_index`."""
        for store in (self.frames, *self.stores, self.cache.clip_store):
            with suppress(StoreError):  # the cache may be read-only; indexes are optional
                store.write_index(at_end=at_end)

    def refresh(self) -> None:
        """Take into account what other processes have committed, so that it is not done again here."""
        for store in (self.cache.clip_store, self.frames, *self.stores):
            store.refresh()

    def report(self) -> ExtractReport:
        """Return the report of what has been done so far."""
        return ExtractReport(
            clips=len(self.asked),
            done=self.done,
            reused=self.reused,
            failed=tuple(self.failed),
            backbones={m.name: m.dim for m in self.models},
            features={m.name: s.folder.name for m, s in zip(self.models, self.stores, strict=True)},
            seconds=time.perf_counter() - self.started,
            stages=self.stages,
            beside=self.beside,
            others=self._contention.others(),
            notes=tuple(self.notes.texts),
            unread=tuple(self.found.unread),
        )


def _show_waiting(bar: Any, text: str) -> None:
    if getattr(bar, "postfix", None) != text:  # write it once to a log; a hidden bar has no postfix
        bar.set_postfix_str(text)


def _new_features(cache: Cache, store: Store) -> list[str]:
    """Return notes on why clips are embedded again although the cache has features of this backbone and preset."""
    if len(store):
        return []
    new = store.identity
    return [
        f"{plural(len(other), 'clip has', 'clips have')} features of {new['backbone']} made with other settings "
        f"({what_changed(other.identity, new)}): they stay, embedding again beside them"
        for other in cache.filled_features()
        if other.identity["backbone"] == new["backbone"]
        and other.identity["preprocessing"]["preset"] == new["preprocessing"]["preset"]
    ]


def _same_content(first: HeldClip, other: HeldClip, *, more: int) -> str:
    note = f"{other.clip_id} has the same content as {first.clip_id}" + f", and {more} more such clips" * bool(more)
    if other.group not in (None, first.group):
        note += f", but its group is {other.group}, not {first.group}: {first.group} is used"
    if other.label == first.label:
        return note
    return (
        f"{note}, but its class is {other.label}, not {first.label}: training uses {first.label}; remove the wrong one"
    )


def _frame_arrays(clips: dict[str, StoredClip]) -> dict[str, Any]:
    jpeg_bytes, jpeg_end = joined([c.jpegs for c in clips.values()])
    return {
        "key": text_column(clips),
        "jpeg_bytes": jpeg_bytes,
        "jpeg_end": jpeg_end,
        "frame_index": np.array([c.frame_index for c in clips.values()], dtype=np.int64),
        "pts_seconds": np.array([c.pts_seconds for c in clips.values()], dtype=np.float64),
        "ledger": text_column(json.dumps(c.ledger, sort_keys=True) for c in clips.values()),
    }


def _feature_arrays(clips: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {
        "key": text_column(clips),
        "features": np.stack([features for features, _ in clips.values()]),
        "pts_seconds": np.stack([times for _, times in clips.values()]),
    }
