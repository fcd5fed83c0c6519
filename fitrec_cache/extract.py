"""Stage one: decode each clip once, embed its frames once with every given backbone, and store both."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fitrec_cache.backbones.backbone import Backbone, load_backbone
from fitrec_cache.backbones.pretrained import EMBEDDED, BackboneChoice
from fitrec_cache.cache import Cache, HeldClip, newest, pick_frames
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.devices import cores, overlooked_gpu
from fitrec_cache.common.files import is_there, remove_unfinished
from fitrec_cache.common.memory import keep_freed_memory
from fitrec_cache.common.progress import Notes, timed
from fitrec_cache.common.threads import all_threads, threads_beside_others, threads_set_to
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.dataset.find_clips import ClipList, find_clips, nearest
from fitrec_cache.errors import FitrecError, StoreError, UsageError, WeightsError
from fitrec_cache.extraction.claims import CLAIMS
from fitrec_cache.extraction.erase import (
    erase_taken_out,
    names_of_all,
    refuse_beside_others,
    refuse_links,
    refuse_most,
    refuse_renamed,
)
from fitrec_cache.extraction.extract_report import ExtractReport, FailedClip
from fitrec_cache.extraction.extractor import Extractor
from fitrec_cache.extraction.history import FOLDER as HISTORY
from fitrec_cache.extraction.history import Extraction, note
from fitrec_cache.extraction.identity import frame_identity, what_changed
from fitrec_cache.extraction.prefetch import Prefetcher
from fitrec_cache.settings.variants import plain_name
from fitrec_cache.storage.root import MARKER, refuse_links_out
from fitrec_cache.storage.sources import MOST_PIXELS, MOST_SAMPLES, is_count
from fitrec_cache.storage.store import Store
from fitrec_cache.video.decoding import TIME_LIMIT, check_time_limit
from fitrec_cache.wording import between, listed, plural

#: The number of classes that the first note names.
_MOST_CLASSES = 10

#: Short side of stored frames in pixels; smaller sources keep their own size. Measurements: docs/design.md.
FRAME_SIZE = 288
SAMPLES = 20


@plain_arguments
def extract(
    videos: Path | None = None,
    *,
    cache: Path,
    backbone: Sequence[str] = (EMBEDDED,),
    preset: str = "native",
    classes: str | None = None,
    root: Path | None = None,
    lists: Sequence[Path] = (),
    group_by: str | None = None,
    samples: int | None = None,
    frame_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    compile: bool = False,
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    prune: bool = False,
    erase: bool = False,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> ExtractReport:
    """Turn videos into cached features; existing results are reused, and an interrupted run is resumed.

    Each clip is decoded once for all backbones, in a separate process, and its T sampled frames are stored, so that
    another backbone needs no video. Each frame is embedded once. After this call the process keeps freed memory for
    reuse (:mod:`fitrec_cache.common.memory`).

    Args:
        videos: A folder of class folders, a CSV manifest (``path,label``, optional ``group,split,start,end``), or a
            UCF101-style list. None: the clips in the cache, whose videos need not exist any more.
        cache: Cache folder; created if it does not exist.
        backbone: ``NAME`` or ``NAME=WEIGHTS`` for each backbone; see
            :func:`fitrec_cache.backbones.backbone.load_backbone`.
        preset: ``native``, ``grid``, ``paper`` or ``table1``.
        classes: ``fitness35``, names separated by commas, or a file with one name per line; None for all.
        root: Folder that the paths of a manifest or list are relative to; None for the folder it is in.
        lists: UCF101-style lists; only clips named in one of them are used.
        group_by: The manifest column with a clip's group, or ``folder``: the folders inside class folders are groups.
        samples: Frames per clip, ``T``; None for 20, or without videos for the value in the cache.
        frame_size: Short side of stored frames in pixels; None for 288, or without videos for the value in the cache.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        compile: Compile the backbones first, which takes some 5 to 30 s each; embedding is then faster
            (docs/performance.md). The last bits differ, so these features are stored separately. Needs a compiler
            (C++, or C on CUDA) and Python's headers.
        workers: Number of decoder processes; None for one per core.
        time_limit: Time limit for decoding one clip, in seconds; a clip is tried twice.
        prune: Remove clips of the cache that are not among ``videos``: they are not used until they are extracted
            again, but their stored data are kept.
        erase: With ``prune``: also erase from disk the data of all clips that are or were removed; see
            :func:`fitrec_cache.extraction.erase.erase_taken_out`. Refused if this call would remove most of a cache.
        progress: Show a progress bar on standard error.
        tell: Called with each note of the report as soon as it is known, most of them before anything is decoded.

    Returns:
        A report on the clips that were done, reused and failed.

    Raises:
        UsageError: For wrong arguments, before anything is decoded.
        StoreError: If the cache cannot be read or written; stored data are kept.
    """
    started = time.perf_counter()
    if not backbone:
        raise UsageError("no backbone named: give at least one, such as --backbone resnet50")
    limits = (("samples", samples, MOST_SAMPLES), ("frame_size", frame_size, MOST_PIXELS), ("workers", workers, 1024))
    for name, value, most in limits:
        if value is not None and not is_count(value, most):
            raise UsageError(f"{name} is {value}: expected 1 to {most}")
    check_time_limit(time_limit)
    _refuse_useless(videos, group_by, prune=prune, erase=erase)
    if erase:
        refuse_beside_others(cache)
    keep_freed_memory()
    notes = Notes(tell)
    there: Cache | None = None
    known: dict[str, str] = {}
    last_part: str | None = None
    if videos is None:
        there = Cache(cache)
        found, known = _held_clips(there, classes, root, lists)
    else:
        if prune:  # clips that other processes enter after this point are not taken out
            last_part = Cache(cache).clip_store.newest if is_there(cache / MARKER) else ""
        found = find_clips(videos, root=root, lists=lists, classes=classes, group_by=group_by)
        _refuse_missing(found, videos, prune=prune)
        notes.add(_counted(found.clips), *found.notes)
    clips = found.clips
    models = _load_backbones(backbone, preset, precision, device, compile, cache)
    opened = there or Cache(cache, create=True)  # created only now, so that a wrong call leaves no empty folder
    refuse_links_out(cache, [cache / CLAIMS, cache / HISTORY], "extract would write and remove files there")
    for folder in (cache, cache / HISTORY):
        remove_unfinished(folder)  # unfinished files in the stores are reported by `check`
    if erase:
        refuse_links(opened)
        refuse_most(opened, names_of_all(found))
    if videos is None:
        frames, several = pick_frames(opened, samples=samples, frame_size=frame_size)
        notes.add(*several)
    else:
        notes.add(*_about_classes(clips, opened))
        identity = frame_identity(samples=samples or SAMPLES, frame_size=frame_size or FRAME_SIZE)
        frames = opened.frame_store(identity)
        notes.add(*_new_settings(opened, frames))
    notes.add(*_too_small(frames, models), *_slow(models), *_unused_gpu(device, models))
    run = Extractor(opened, frames, models, notes, found, started=started)
    workers = 0 if videos is None else min(workers or cores(), len(clips))
    threads = threads_beside_others() if any(m.on_cpu for m in models) else all_threads()
    notes.add(*threads.notes)
    try:
        with (
            threads_set_to(threads.number),
            Prefetcher(models, frames, known, workers=workers, time_limit=time_limit) as prefetcher,
        ):
            run.work(prefetcher, progress=progress)
        if erase:
            refuse_renamed(opened, found, run.unread)
        if videos is not None:
            run.see_to_others(prune=last_part)
        run.write_indexes(at_end=True)
        lost = _lost_classes(clips, run.failed, opened)
        if erase:  # from here on the opened stores are outdated
            with timed(run.stages, "write"):
                notes.add(*erase_taken_out(cache))
    except (KeyboardInterrupt, FitrecError):  # what was finished so far is in the cache, so it goes into its history
        run.tell_changes(erased=False)
        _note(cache, run.report(), models)
        raise
    run.tell_changes(erased=erase)
    notes.add(*lost)
    report = run.report()
    _note(cache, report, models)
    return report


def _refuse_useless(videos: Path | None, group_by: str | None, *, prune: bool, erase: bool) -> None:
    """Raise UsageError for options that have no effect without another."""
    if prune and videos is None:
        raise UsageError("--prune removes what is not among VIDEOS: give VIDEOS, or leave it out")
    if erase and not prune:
        raise UsageError("--erase erases from disk what --prune removes: give --prune too, or leave it out")
    if group_by is not None and videos is None:
        raise UsageError("--group-by takes groups from VIDEOS: give VIDEOS, or leave it out")


def _refuse_missing(found: ClipList, videos: Path, *, prune: bool) -> None:
    """Raise UsageError if no video exists, or if clips that may exist would be removed."""
    if not any(clip.path and is_there(clip.path) for clip in (*found.clips, *found.passed_over)):
        missing = found.clips[0].path or found.clips[0].clip_id
        raise UsageError(
            f"no file that {videos} names is there, such as {missing}: give the --root of its paths, or right ones"
        )
    if prune and found.unread:
        raise UsageError(
            f"--prune removes what is not among VIDEOS, but {found.unread[0]} cannot be read: clips may only seem to "
            "be missing. Make it readable, or leave --prune out"
        )


def _counted(clips: Sequence[Clip]) -> str:
    """Return the note on how many clips there are, in total and per class."""
    of_class = Counter(clip.label for clip in clips)
    each = between(min(of_class.values()), max(of_class.values()))
    named = f": {listed(sorted(of_class), most=_MOST_CLASSES)}"
    return f"{plural(len(clips), 'clip')} of {plural(len(of_class), 'class', 'classes')}, {each} each{named}"


def _about_classes(clips: Sequence[Clip], cache: Cache) -> list[str]:
    """Return notes on classes with too few clips (including those in the cache), and on possibly misspelt classes."""
    asked, held = Counter(clip.label for clip in clips), cache.classes()
    few: dict[str, set[str]] = {label: set() for label, n in sorted(asked.items()) if max(n, held[label]) < 3}
    named = [(clip.label, clip.clip_id) for clip in clips]
    named += [(clip.label, clip.clip_id) for clip in (cache.entries() if few else ()) if not clip.problem]
    for label, clip_id in named:  # a clip may be both asked for and in the cache
        if label in few:
            few[label].add(clip_id)
    notes = [
        f"class {label} has {'one clip: film two' if len(ids) == 1 else 'two clips: film one'} more, as training, "
        "choosing and testing each need one"
        for label, ids in few.items()
        if len(ids) < 3
    ]
    for label in sorted(asked.keys() - held.keys()):
        if near := nearest(label, held, cutoff=0.7):
            notes.append(f"class '{label}' is new to the cache: did you mean '{near}'?")
    return notes


def _note(cache: Path, report: ExtractReport, models: Sequence[Backbone]) -> None:
    """Log the extraction if anything was done; the log is for people only, so a failure to write it is ignored."""
    if not report.done:
        return
    done = Extraction(
        backbones=tuple(f"{m.name}, preset {m.preprocessing.preset}, {m.precision}" for m in models),
        device=str(models[0].origin()["device"]),
        done=report.done,
        seconds=round(report.seconds, 1),
        stages={name: round(s, 1) for name, s in report.stages.items()},
        bottleneck=report.bottleneck,
    )
    with suppress(StoreError):
        note(cache, done)


def _held_clips(
    cache: Cache, classes: str | None, root: Path | None, lists: Sequence[Path]
) -> tuple[ClipList, dict[str, str]]:
    """Return the usable clips of a cache, and their content hashes by clip id."""
    if classes or root or lists:
        raise UsageError("--classes, --root and --list choose among videos: give VIDEOS, or leave them out")
    held = sorted(newest(cache.entries()).values(), key=lambda c: c.clip_id)  # earlier names are left unchanged
    if not held:
        raise UsageError(f"{cache.folder} holds no clips yet: give VIDEOS")
    clips = (Clip(clip_id=c.clip_id, label=c.label, group=c.group, extra=c.extra) for c in held)
    return ClipList(clips=tuple(clips), notes=()), {c.clip_id: c.video_sha256 for c in held}


def _load_backbones(
    texts: Sequence[str], preset: str, precision: str, device: str, compiled: bool, cache: Path
) -> list[Backbone]:
    names = [BackboneChoice.parse(text).name for text in texts]
    if repeated := sorted({n for n in names if names.count(n) > 1}):
        raise UsageError(
            f"backbone {repeated[0]} is named twice: name each once, and other weights in a run of their own"
        )
    models = []
    for text in texts:
        try:
            models.append(load_backbone(text, preset=preset, precision=precision, device=device, compiled=compiled))
        except WeightsError as error:
            if "=" in text or (file := _file_of(plain_name(text), cache)) is None:
                raise
            raise WeightsError(f"{error}. The cache has features of {text} by --backbone {text}={file}") from error
    return models


def _file_of(name: str, cache: Path) -> str | None:
    """Return the weights file with which a cache's features of a backbone were made; None if there is none."""
    with suppress(StoreError):  # no cache, or a damaged one
        stores = [s for s in Cache(cache).feature_stores() if s.identity["backbone"] == name]
        return next((file for s in stores if Path(file := str(s.origin().get("weights"))).is_file()), None)
    return None


def _new_settings(cache: Cache, frames: Store) -> list[str]:
    """Return notes on why videos are decoded again although the cache has frames."""
    if len(frames):
        return []
    return [
        f"{plural(len(other), 'clip has', 'clips have')} frames made with other settings "
        f"({what_changed(other.identity, frames.identity)}); decoding again"
        for other in cache.frame_stores()
        if len(other)
    ]


def _too_small(frames: Store, models: Sequence[Backbone]) -> list[str]:
    stored = frames.identity["short_side"]
    return [
        f"{m.name} wants {max(m.preprocessing.size)} px, frames are stored with a short side of at most {stored} px: "
        f"enlarged. `extract VIDEOS --frame-size {max(m.preprocessing.size)}` stores larger frames"
        for m in models
        if m.preprocessing.first_size is None and not m.preprocessing.sees_poses and max(m.preprocessing.size) > stored
    ]


def _unused_gpu(device: str, models: Sequence[Backbone]) -> list[str]:
    why = overlooked_gpu() if device == "auto" and models[0].on_cpu else ""
    return [f"there seems to be a GPU that is not used: {why}"] * bool(why)


def _slow(models: Sequence[Backbone]) -> list[str]:
    """Return notes on requested precisions that are slower than fp32 on this device."""
    slow = sorted({m.precision for m in models if m.is_slow})
    return [f"{each} takes longer than fp32 on this device, which has no fast instructions for it" for each in slow]


def _lost_classes(clips: Sequence[Clip], failed: Sequence[FailedClip], cache: Cache) -> list[str]:
    """Return notes on classes without any usable clip, which the number of failed clips alone would not show.

    A clip that failed now but was in the cache before is still used as it was.
    """
    names = {f.clip_id for f in failed}
    bad = {c.clip_id for c in clips if c.clip_id in names and not _is_used_as(c.label, cache.clip(c.clip_id))}
    usable = {clip.label for clip in clips if clip.clip_id not in bad}
    lost = sorted({clip.label for clip in clips if clip.clip_id in bad} - usable)
    return [f"class {label}: none of its clips can be used, so it will not be recognised" for label in lost if usable]


def _is_used_as(label: str, held: HeldClip | None) -> bool:
    return held is not None and not held.problem and held.label == label
