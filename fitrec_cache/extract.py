"""Stage one: decode each clip once, embed its frames once with every backbone named, keep both."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fitrec_cache.ahead import Ahead, Hashed, Prepared
from fitrec_cache.backbone import EMBEDDED, Backbone, load_backbone
from fitrec_cache.cache import (
    MOST_PIXELS,
    MOST_SAMPLES,
    TAKEN_OUT,
    Cache,
    HeldClip,
    flat,
    is_count,
    newest,
    pick_frames,
)
from fitrec_cache.clips import NO_GROUPS, Clip, find_clips, some
from fitrec_cache.decoding import StoredClip, check_time_limit
from fitrec_cache.devices import cores
from fitrec_cache.errors import StoreError, UsageError, VideoError, WeightsError
from fitrec_cache.history import Extraction, note, now
from fitrec_cache.jpeg import CODEC
from fitrec_cache.memory import keep_freed_memory
from fitrec_cache.progress import progress_bar, timed
from fitrec_cache.store import FORMAT_VERSION, Store, text_column
from fitrec_cache.turns import Turns

#: A part is committed after this many clips or seconds, whichever comes first: what a kill can cost.
COMMIT_CLIPS = 32
COMMIT_SECONDS = 30.0

_STAGES = ("compile", "wait for files", "wait for frames", "wait for others", "embed", "write")

#: Short side in pixels; sources up to this are kept at their own size. Measured: docs/design.md.
FRAME_SIZE = 288
SAMPLES = 20


@dataclass(frozen=True, kw_only=True)
class FailedClip:
    """A clip that could not be used, and why."""

    clip_id: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ExtractReport:
    """What :func:`extract` did.

    Attributes:
        clips: Number of clips asked for.
        done: Clips finished by this call, frames and all features.
        reused: Clips that needed nothing.
        failed: Clips that could not be used.
        backbones: Embedding length by backbone name.
        features: The feature store's folder name by backbone name; ``train-head --backbone`` takes it too.
        seconds: Wall time.
        stages: Seconds of wall time by what the main thread did; together all of ``seconds`` but moments.
        beside: Seconds of work that threads and decoder processes did meanwhile: of reading files, and of processor
            time.
        notes: What a person should know, such as duplicates.
    """

    clips: int
    done: int
    reused: int
    failed: tuple[FailedClip, ...]
    backbones: dict[str, int]
    features: dict[str, str]
    seconds: float
    stages: dict[str, float]
    beside: dict[str, float]
    notes: tuple[str, ...]

    @property
    def bottleneck(self) -> str:
        """What took longest: a stage of the main thread, or what it waited for."""
        longest = max(self.stages, key=lambda k: self.stages[k])
        if longest == "wait for frames":
            return max(("decode", "prepare"), key=lambda k: self.beside[k])
        return "hash" if longest == "wait for files" else longest

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "clips": self.clips,
            "done": self.done,
            "reused": self.reused,
            "failed": [vars(f) for f in self.failed],
            "backbones": {name: {"dim": dim, "features": self.features[name]} for name, dim in self.backbones.items()},
            "seconds": round(self.seconds, 3),
            "stages": {name: round(s, 3) for name, s in self.stages.items()},
            "beside": {name: round(s, 3) for name, s in self.beside.items()},
            "bottleneck": self.bottleneck,
            "notes": list(self.notes),
        }


def frame_identity(*, samples: int, frame_size: int) -> dict[str, Any]:
    """Return everything that decides what a stored frame looks like, as plain JSON values."""
    from PIL import features

    from fitrec_cache.container import decoder_version

    return {
        "format_version": FORMAT_VERSION,
        "samples": samples,
        "sampling": "floor(i * n_frames / (samples + 1)), i = 1..samples",
        "short_side": frame_size,
        "geometry": "whole frame, upright, square pixels, bicubic, never enlarged",
        "codec": f"{CODEC}, libjpeg-turbo {features.version('libjpeg_turbo')}",
        "decoder": decoder_version(),
    }


def feature_identity(frames: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    """Return everything that decides the value of a stored embedding, as plain JSON values."""
    return {"format_version": FORMAT_VERSION, "frames": frames, "dtype": "float16", **backbone.identity()}


def extract(
    videos: Path | None = None,
    *,
    cache: Path,
    backbone: Sequence[str] = (EMBEDDED,),
    preset: str = "native",
    classes: str | None = None,
    root: Path | None = None,
    lists: Sequence[Path] = (),
    samples: int | None = None,
    frame_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    compile: bool = False,
    workers: int | None = None,
    clip_seconds: float = 120.0,
    prune: bool = False,
    progress: bool = False,
) -> ExtractReport:
    """Turn videos into cached features; what is done already is reused, and a run that stopped goes on.

    Each clip is decoded once for all backbones, in a process of its own, and its T sampled frames are kept, so that
    another backbone needs no video. Each frame is embedded once.

    Args:
        videos: A folder of class folders, a CSV manifest (``path,label``, optional ``group,split``), or a UCF101-style
            list. None: the clips that the cache holds; the videos may be gone.
        cache: Cache folder, made if it is not there.
        backbone: ``NAME`` or ``NAME=WEIGHTS`` for each backbone; see :func:`fitrec_cache.backbone.load_backbone`.
        preset: ``native``, ``grid``, ``paper`` or ``table1``.
        classes: ``fitness35``, names separated by commas, or a file with one name a line; None for all.
        root: Folder that the paths of a manifest or list are relative to; None for the folder it is in.
        lists: UCF101-style lists; only clips named in one of them are taken.
        samples: Frames per clip, ``T``; None for 20, or with no videos for what the cache holds.
        frame_size: Short side of stored frames in pixels; None for 288, or with no videos for what the cache holds.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        compile: Compile the backbones first: some 10 to 30 s each, then faster (docs/performance.md). Other last bits,
            so these features are kept apart. Needs a C++ compiler.
        workers: Decoder processes; None for one a core.
        clip_seconds: Time limit for decoding one clip, in seconds; it is tried twice.
        prune: Clips of the cache that are not among ``videos`` count no longer, until they are extracted again; what is
            stored of them stays.
        progress: Show a progress bar on standard error.

    Returns:
        What was done, reused and failed.

    Raises:
        UsageError: For wrong arguments, before anything is decoded.
        StoreError: If the cache cannot be read or written; what was stored stays.
    """
    started = time.perf_counter()
    if not backbone:
        raise UsageError("no backbone named: give at least one, such as --backbone resnet50")
    limits = (("samples", samples, MOST_SAMPLES), ("frame_size", frame_size, MOST_PIXELS), ("workers", workers, 1024))
    for name, value, most in limits:
        if value is not None and not is_count(value, most):
            raise UsageError(f"{name} is {value}: expected 1 to {most}")
    check_time_limit(clip_seconds)
    if prune and videos is None:
        raise UsageError("--prune takes out what is not among VIDEOS: give VIDEOS, or leave it out")
    keep_freed_memory()
    found = None if videos is None else find_clips(videos, root=root, lists=lists, classes=classes)
    if prune and found is not None and found.unread:
        raise UsageError(
            f"--prune takes out what is not among VIDEOS, but {found.unread[0]} cannot be read: clips may only seem to "
            "be missing. Make it readable, or leave --prune out"
        )
    there: Cache | None = None
    known: dict[str, str] = {}
    if found is None:
        there, notes = Cache(cache), []
        clips, known = _held_clips(there, classes, root, lists)
    else:
        clips, notes = list(found.clips), list(found.notes)
    models = _load_backbones(backbone, preset, precision, device, compile, cache)
    opened = there or Cache(cache, create=True)  # made only now: a wrong call shall leave no empty folder
    if videos is None:
        frames = pick_frames(opened, samples=samples, frame_size=frame_size)
    else:
        identity = frame_identity(samples=samples or SAMPLES, frame_size=frame_size or FRAME_SIZE)
        frames = opened.frame_store(identity)
        notes += _new_settings(opened, frames)
    notes += [*_too_small(frames, models), *_slow(models)]
    run = _Run(opened, frames, models, notes, stages={"start": time.perf_counter() - started})
    run.columns_told = found is not None and found.has_columns
    workers = None if videos is None else min(workers or cores(), len(clips))
    with Ahead(models, frames, known, workers=workers, clip_seconds=clip_seconds) as ahead:
        run.work(clips, ahead, progress=progress)
    if found is not None:
        run.see_to_others(found.passed_over, prune=prune)
    if run.kept_columns:
        run.notes = [n for n in run.notes if n != NO_GROUPS]  # the cache knows better
    run.notes += [*run.changes(), *_lost_classes(clips, run.failed, opened)]
    report = run.report(len(clips), time.perf_counter() - started)
    if report.done:
        note(opened.folder, _extraction(report, models))
    return report


def _extraction(report: ExtractReport, models: Sequence[Backbone]) -> Extraction:
    return Extraction(
        ended=now(),
        backbones=tuple(f"{m.name}, preset {m.preprocessing.preset}, {m.precision}" for m in models),
        device=str(models[0].origin()["device"]),
        done=report.done,
        seconds=round(report.seconds, 1),
        stages={name: round(s, 1) for name, s in report.stages.items()},
        bottleneck=report.bottleneck,
    )


def _held_clips(
    cache: Cache, classes: str | None, root: Path | None, lists: Sequence[Path]
) -> tuple[list[Clip], dict[str, str]]:
    """Return the usable clips of a cache, and their contents' hashes by clip id."""
    if classes or root or lists:
        raise UsageError("--classes, --root and --list choose among videos: give VIDEOS, or leave them out")
    held = sorted(newest(cache.clips()).values(), key=lambda c: c.clip_id)  # earlier names stay as they are
    if not held:
        raise UsageError(f"{cache.folder} holds no clips yet: give VIDEOS")
    clips = [Clip(clip_id=c.clip_id, label=c.label, group=c.group, extra=c.extra) for c in held]
    return clips, {c.clip_id: c.video_sha256 for c in held}


def _load_backbones(
    texts: Sequence[str], preset: str, precision: str, device: str, compiled: bool, cache: Path
) -> list[Backbone]:
    models = []
    for text in texts:
        try:
            models.append(load_backbone(text, preset=preset, precision=precision, device=device, compiled=compiled))
        except WeightsError as error:
            if "=" in text or (file := _file_of(text, cache)) is None:
                raise
            raise WeightsError(f"{error}. The cache has features of {text} by --backbone {text}={file}") from error
    names = [m.name for m in models]
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise UsageError(
            f"backbone {repeated[0]} is named twice: name each once, and other weights in a run of their own"
        )
    return models


def _file_of(name: str, cache: Path) -> str | None:
    """Return the file of weights by which a cache has features of a backbone; None if there is none."""
    with suppress(StoreError):  # there is no cache, or it is damaged
        stores = [s for s in Cache(cache).feature_stores() if s.identity["backbone"] == name]
        return next((file for s in stores if Path(file := str(s.origin().get("weights"))).is_file()), None)
    return None


def _new_settings(cache: Cache, frames: Store) -> list[str]:
    """Say why videos are decoded again although the cache holds frames."""
    if len(frames):
        return []
    notes = []
    for other in cache.frame_stores():
        if len(other):
            changed = _changed(other.identity, frames.identity)
            notes.append(f"{len(other)} clips have frames made with other settings ({changed}); decoding again")
    return notes


def _new_features(cache: Cache, store: Store) -> list[str]:
    """Say why clips are embedded again although the cache holds features of this backbone and preset."""
    if len(store):
        return []
    new = store.identity
    return [
        f"{len(other)} clips have features of {new['backbone']} made with other settings "
        f"({_changed(other.identity, new)}); embedding again"
        for other in cache.feature_stores()
        if len(other)
        and other.identity["backbone"] == new["backbone"]
        and other.identity["preprocessing"]["preset"] == new["preprocessing"]["preset"]
    ]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = flat(old), flat(new)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name}: {before.get(name)} -> {after.get(name)}" for name in names)


def _too_small(frames: Store, models: Sequence[Backbone]) -> list[str]:
    stored = frames.identity["short_side"]
    return [
        f"{m.name} wants {max(m.preprocessing.size)} px, frames are stored with a short side of at most {stored} px: "
        f"enlarged. Give --frame-size {max(m.preprocessing.size)} to store larger frames"
        for m in models
        if m.preprocessing.first_size is None and max(m.preprocessing.size) > stored
    ]


def _slow(models: Sequence[Backbone]) -> list[str]:
    """Say where a precision that was asked for costs time instead of saving it."""
    slow = sorted({m.precision for m in models if m.is_slow})
    return [f"{each} takes longer than fp32 on this device, which has no fast instructions for it" for each in slow]


def _lost_classes(clips: Sequence[Clip], failed: Sequence[FailedClip], cache: Cache) -> list[str]:
    """Name the classes none of whose clips can be used, which a count of failed clips would hide.

    A clip that failed now is used on as it was if the cache had it before.
    """
    names = {f.clip_id for f in failed}
    bad = {c.clip_id for c in clips if c.clip_id in names and not _is_used_as(c.label, cache.clip(c.clip_id))}
    usable = {clip.label for clip in clips if clip.clip_id not in bad}
    lost = sorted({clip.label for clip in clips if clip.clip_id in bad} - usable)
    return [f"class {label}: none of its clips can be used, so it will not be recognised" for label in lost if usable]


def _is_used_as(label: str, held: HeldClip | None) -> bool:
    return held is not None and not held.problem and held.label == label


@dataclass
class _Rows:
    """Finished clips that are not committed yet."""

    since: float = field(default_factory=time.monotonic)
    clips: list[HeldClip] = field(default_factory=list)
    frames: dict[str, StoredClip] = field(default_factory=dict)
    features: list[dict[str, tuple[Any, Any]]] = field(default_factory=list)
    done: int = 0

    def pending(self) -> int:
        """Return how many clips a commit would write."""
        return max(len(self.clips), len(self.frames), *map(len, self.features))


@dataclass(frozen=True)
class _Task:
    """A clip on its way: its content hash, or why it cannot be used, and its frames to come."""

    clip: Clip
    key: str
    problem: str = ""
    coming: Future[Prepared | str] | None = None


class _Run:
    """The state of one extraction."""

    def __init__(
        self, cache: Cache, frames: Store, models: Sequence[Backbone], notes: list[str], stages: dict[str, float]
    ) -> None:
        self.cache, self.frames, self.models, self.notes = cache, frames, models, notes
        self.asked: list[str] = []
        self.begun = self.columns_told = False
        self.kept_columns: list[str] = []
        self.relabelled: list[str] = []
        self.stores = [cache.feature_store(feature_identity(frames.identity, m)) for m in models]
        for store, model in zip(self.stores, models, strict=True):
            self.notes += _new_features(cache, store)
            with suppress(StoreError):  # of a cache that can only be read
                store.write_origin(store.origin() | {"weights": model.origin()["weights"]})  # they may have moved
        self.begun_with: dict[str, Clip] = {}  # by content: clips on their way, and those that failed
        self.rows = self._new_rows()
        self.done = self.reused = 0
        self.failed: list[FailedClip] = []
        self.stages = stages | dict.fromkeys(_STAGES, 0.0)
        self.beside: dict[str, float] = {}

    def _new_rows(self) -> _Rows:
        return _Rows(features=[{} for _ in self.models])

    def work(self, clips: Sequence[Clip], ahead: Ahead, *, progress: bool) -> None:
        """Take every clip from video to features; commit what is finished, also when interrupted."""
        self.beside, self.asked = ahead.busy, [clip.clip_id for clip in clips]
        bar = progress_bar(total=len(clips), unit="clip", what="extract", show=progress)
        self.turns = Turns(
            self.cache.folder / "claims",
            clips,
            size=COMMIT_CLIPS,
            purpose="\n".join(s.folder.name for s in (self.frames, *self.stores)),
            refresh=self.refresh,
        )
        try:
            with bar:
                while self._more(bar):
                    for task in self._tasks(self.turns, ahead):
                        self._one(task)
                        self.turns.finished(task.clip)
                        bar.update()
                        if self.rows.pending() >= COMMIT_CLIPS or time.monotonic() - self.rows.since > COMMIT_SECONDS:
                            self.commit()
                    self.commit()
            self._settle_names()
        finally:
            self.commit()
            self.turns.close()
        if ahead.decodes:
            self.cache.finish(self.asked)

    def _settle_names(self) -> None:
        """Of several clips of one content, let the first by name be written last, which is the one that counts."""
        same = self.cache.same_content()
        asked = set(self.asked) if same else set()
        told: dict[tuple[str, str], list[tuple[HeldClip, HeldClip]]] = {}
        for held in same:
            clips = sorted((clip for clip in held if clip.clip_id in asked), key=lambda clip: clip.clip_id)
            if clips and clips[0].since < max(clip.since for clip in held):
                self.rows.clips.append(clips[0])
            for other in clips[1:]:
                told.setdefault((clips[0].label, other.label), []).append((clips[0], other))
        self.notes += [_same_content(*pairs[0], more=len(pairs) - 1) for pairs in told.values()]

    def see_to_others(self, passed_over: Collection[str], *, prune: bool) -> None:
        """Say which clips of the cache were not asked for, as those whose files were removed; or take them out.

        Args:
            passed_over: Names of those whose files are there.
            prune: Whether to take out the others.
        """
        others, there = self.cache.others(self.asked), set(passed_over)
        here = self.cache.contents(self.asked) if others else set()  # an earlier name of these is no clip of its own
        absent = [clip for clip in others if clip.clip_id not in there]
        gone = [clip for clip in absent if clip.video_sha256 not in here and not clip.problem]
        if prune:
            self.cache.finish_all(but=there)
            self.rows.clips += [replace(clip, problem=TAKEN_OUT) for clip in absent]
            self.commit()
        names = sorted(clip.clip_id for clip in gone)
        if gone and prune:
            self.notes.append(f"{len(gone)} clips that are not among these videos were taken out: {some(names)}")
        elif gone:
            self.notes.append(
                f"{len(gone)} clips of the cache are not among these videos and are trained on with them: "
                f"{some(names)}. --prune takes them out"
            )
        if kept := sorted(clip.clip_id for clip in others if clip.clip_id in there and not clip.problem):
            self.notes.append(
                f"{len(kept)} clips of the cache were not asked for now and are trained on all the same: {some(kept)}"
            )

    def changes(self) -> list[str]:
        """Return what became of names and columns that clips had before."""
        notes = []
        if n := len(self.kept_columns):
            notes.append(f"{n} clips keep the group and columns that a manifest gave them: {some(self.kept_columns)}")
        if n := len(self.relabelled):
            notes.append(f"{n} clips are of another class than before: {some(self.relabelled)}")
        return notes

    def _more(self, bar: Any) -> bool:
        """Say whether clips are left; wait, and show it, while other processes have claimed all that are."""
        with timed(self.stages, "wait for others"):
            left = self.turns.more(lambda n: bar.set_postfix_str(f"{n} clips left to other processes, waiting"))
        bar.set_postfix_str("", refresh=False)
        return left

    def _tasks(self, clips: Iterable[Clip], ahead: Ahead) -> Iterator[_Task]:
        """Yield tasks in order while later clips are made ready, or in turns with that."""
        queue: deque[_Task] = deque()
        hashes = ahead.hashes(clips)
        while True:
            with timed(self.stages, "wait for files"):
                hashed = next(hashes, None)
            if hashed is None:
                break
            queue.append(self._task(hashed, ahead))
            if len(queue) > ahead.distance and ahead.in_turns:
                yield from self._all_ready(queue)
                queue.clear()
            elif len(queue) > ahead.distance:
                yield from self._all_ready([queue.popleft()])
        for tasks in [queue] if ahead.in_turns else [[task] for task in queue]:
            yield from self._all_ready(tasks)

    def _all_ready(self, tasks: Iterable[_Task]) -> Iterable[_Task]:
        """Return tasks once all of them are ready to be embedded; what is finished meanwhile is committed in time."""
        pending = {task.coming for task in tasks if task.coming is not None}
        while pending:
            with timed(self.stages, "wait for frames"):
                pending = wait(pending, timeout=COMMIT_SECONDS).not_done
            self.turns.alive()
            if pending and self.rows.pending():  # one clip that takes long shall not hold up others
                self.commit()
        return tasks

    def _task(self, hashed: Hashed, ahead: Ahead) -> _Task:
        clip, key = hashed.clip, hashed.key
        if hashed.problem:
            return _Task(clip, key, problem=hashed.problem)
        todo = self._todo(key)
        has_frames = key in self.frames or key in self.rows.frames
        if key in self.begun_with or (has_frames and not todo):
            return _Task(clip, key)
        if not has_frames and not ahead.decodes:
            problem = "its frames are not in the cache: give VIDEOS to decode it again" if todo else ""
            return _Task(clip, key, problem=problem)
        self.begun_with[key] = clip
        return _Task(clip, key, coming=ahead.submit(hashed, todo))

    def _todo(self, key: str) -> list[int]:
        """Return the numbers of the backbones that have not seen a clip."""
        return [i for i, s in enumerate(self.stores) if key not in s and key not in self.rows.features[i]]

    def _one(self, task: _Task) -> None:
        problem, worked = task.problem, False
        if task.coming is not None:
            prepared = task.coming.result()
            if isinstance(prepared, str):
                problem = prepared
            else:
                problem, worked = self._embed(task.key, prepared)
            if not problem:
                del self.begun_with[task.key]
        elif not problem and self._todo(task.key):
            problem = f"same content as {self.begun_with[task.key].clip_id}, which failed"
        if problem:
            self.failed.append(FailedClip(clip_id=task.clip.clip_id, path=str(task.clip.path or ""), reason=problem))
        else:
            self.rows.done += worked
            self.reused += not worked
        self._note_clip(task, problem)

    def _embed(self, key: str, prepared: Prepared) -> tuple[str, bool]:
        """Embed one clip with every backbone that has not seen it; return why not, and whether there was any work."""
        worked = prepared.decoded is not None and key not in self.frames
        if worked and prepared.decoded is not None:
            self.rows.frames[key] = prepared.decoded
        for i in self._todo(key):
            model, x = self.models[i], prepared.inputs[i]
            with timed(self.stages, "compile"):
                model.compile_for(len(x))
            try:
                with timed(self.stages, "embed"):
                    self.rows.features[i][key] = (model.embed_prepared(x), np.asarray(prepared.pts_seconds))
            except VideoError as error:
                return str(error), worked
            worked = True
        return "", worked

    def _note_clip(self, task: _Task, problem: str) -> None:
        clip = task.clip
        entry = HeldClip(
            clip_id=clip.clip_id,
            video_sha256=task.key,
            label=clip.label,
            group=clip.group,
            extra=clip.extra,
            problem=problem,
        )
        if self.cache.holds(entry):
            return
        before = self.cache.clip(clip.clip_id)
        if problem and before is not None and not before.problem:
            return  # what is stored of it stays usable
        if before is not None and not self.columns_told:
            meant = replace(entry, group=before.group or clip.group, extra=before.extra)
            self.kept_columns += [clip.clip_id] * (meant != entry)
            entry = meant
            if self.cache.holds(entry):
                return
        if before is not None and before.label != entry.label and not before.problem:
            self.relabelled.append(f"{clip.clip_id} ({before.label} -> {entry.label})")
        if before is not None and before.video_sha256 != entry.video_sha256:
            self.notes.append(f"{clip.clip_id} has other content than before: it takes the place of the earlier video")
        self.rows.clips.append(entry)

    def commit(self) -> None:
        """Write finished clips: frames, then features, then the clips themselves. Done means committed."""
        rows = self.rows
        with timed(self.stages, "write"):
            if rows.frames:
                if not self.begun:  # until the end of the run what is here may be a part only
                    self.cache.begin(self.asked)
                    self.begun = True
                self.frames.write_part(_frame_arrays(rows.frames))
                rows.frames = {}
            for i, (store, model) in enumerate(zip(self.stores, self.models, strict=True)):
                if rows.features[i]:
                    store.write_part(_feature_arrays(rows.features[i]))
                    rows.features[i] = {}
                    store.write_origin(model.origin())
            if rows.clips:
                self.cache.write_clips(rows.clips)
            self.done += rows.done
            self.rows = self._new_rows()  # what an interruption leaves in the old ones is written by the next commit
            self.turns.committed()
            for store in (self.frames, *self.stores):
                store.write_index()
            self.cache.write_index()

    def refresh(self) -> None:
        """Take in what others committed meanwhile: it need not be done here."""
        self.cache.refresh()
        for store in (self.frames, *self.stores):
            store.refresh()

    def report(self, n_clips: int, seconds: float) -> ExtractReport:
        return ExtractReport(
            clips=n_clips,
            done=self.done,
            reused=self.reused,
            failed=tuple(self.failed),
            backbones={m.name: m.dim for m in self.models},
            features={m.name: s.folder.name for m, s in zip(self.models, self.stores, strict=True)},
            seconds=seconds,
            stages=self.stages,
            beside=self.beside,
            notes=tuple(self.notes),
        )


def _same_content(first: HeldClip, other: HeldClip, *, more: int) -> str:
    note = f"{other.clip_id} has the same content as {first.clip_id}" + f", and {more} more such clips" * bool(more)
    if other.label == first.label:
        return note
    return (
        f"{note}, but is of class {other.label}, not {first.label}: training takes it for {first.label}, remove the "
        "wrong one"
    )


def _frame_arrays(clips: dict[str, StoredClip]) -> dict[str, Any]:
    jpegs = [[len(j) for j in c.jpegs] for c in clips.values()]
    return {
        "key": text_column(clips),
        "jpeg_bytes": np.frombuffer(b"".join(j for c in clips.values() for j in c.jpegs), dtype=np.uint8),
        "jpeg_end": np.cumsum(np.array(jpegs, dtype=np.int64)).reshape(len(clips), -1),
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
