"""Audit the splits that the runs really used, and show the most similar pairs as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fitrec_cache.auditing.leaks import UNLOOKED, UNLOOKED_IN_POSES, Verdict, pairs_across, verdict
from fitrec_cache.auditing.near_duplicates import NearDuplicates
from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, newest
from fitrec_cache.common.files import canonical_json
from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.dataset.splits import Split
from fitrec_cache.errors import StoreError
from fitrec_cache.features import quick_look, stored_embeddings
from fitrec_cache.report.pictures import Frames, Glimpse
from fitrec_cache.report.records import Record
from fitrec_cache.settings.poses import sees_poses
from fitrec_cache.storage.store import Store
from fitrec_cache.video.spans import short_content
from fitrec_cache.wording import plural

MOST_PAIRS = 4


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A training (or validation) clip and a test clip that look like one recording."""

    similarity: float
    train: Glimpse
    test: Glimpse


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """The audit of all splits (seeds and folds) that runs with one split rule used.

    Attributes:
        record: The run whose split leaks most; the first run if none leaks.
        verdict: The verdict on that split, as numbers and as one line of text.
        n_splits: Number of different splits.
        n_leaking: Number of splits that leak.
        looked: Whether near-duplicates were searched for.
        n_pairs: Number of near-duplicate pairs between training (or validation) and test in that run's split.
        pairs: The most similar of these pairs, at most four, without those whose frames are not available.
    """

    record: Record
    verdict: Verdict
    n_splits: int
    n_leaking: int
    looked: bool
    n_pairs: int
    pairs: tuple[Pair, ...]


class Auditor:
    """Provides the frames of runs from one cache, and audits their splits; each set of clips is searched only once.

    Raises :class:`fitrec_cache.errors.FitrecError` for anything that the cache does not hold.
    """

    def __init__(self, cache: Cache, *, progress: bool = False) -> None:
        self._cache, self._progress = cache, progress
        self._found: dict[tuple[Path, tuple[str, ...]], NearDuplicates | None] = {}

    @cached_property
    def _known(self) -> dict[str, HeldClip]:
        """The clips of the cache by current and earlier names, with their current group; none that was taken out."""
        clips = self._cache.clips()
        used = newest(clips)
        return {
            clip.clip_id: replace(clip, group=used[clip.video_sha256].group) if clip.video_sha256 in used else clip
            for clip in clips
            if clip.problem != TAKEN_OUT or clip.video_sha256 in used
        }

    @cached_property
    def _stores(self) -> list[Store]:
        return self._cache.filled_features()

    def frames(self, record: Record) -> Frames:
        """Return the frames that a run was trained on."""
        contents = record.contents
        clips = {name: clip for name, clip in self._known.items() if _is_as_then(clip, contents)}
        return Frames(self._cache, clips, record)

    def audit(self, records: Sequence[Record], frames: Frames | None) -> Leaks:
        """Audit the splits of runs with one split rule; ``frames``, if given, are used to show pairs."""
        by_sides: dict[tuple[tuple[str, ...], ...], Record] = {}
        for each in records:
            by_sides.setdefault(tuple(tuple(map(str, each.run_json["split"][side])) for side in SIDES), each)
        names = sorted({name for sides in by_sides for side in sides for name in side})
        known = [self._known.get(name) for name in names]
        then: list[Mapping[str, str]] = []
        for contents in (each.contents for each in records):
            then += [contents] if contents not in then else []  # usually the same for all runs of a rule
        clips = [c for c in known if c is not None and all(_is_as_then(c, contents) for contents in then)]
        if len(clips) < len(names):
            gone = sorted(set(names).difference(clip.clip_id for clip in clips))
            many = plural(len(gone), "clip of it is", "clips of it are")
            raise StoreError(f"{many} not in the cache, or another video by now, such as {gone[0]}")
        kinds: dict[str, Record] = {}
        for each in records:
            kinds.setdefault(canonical_json([source["identity"] for source in each.sources]), each)
        seen = [self._look(each, clips) for each in kinds.values()]  # each training searched with its own features
        looks: list[NearDuplicates | None] = [found for found in seen if not isinstance(found, str)]
        looks, unlooked = looks or [None], next((found for found in seen if isinstance(found, str)), UNLOOKED)
        number = {name: i for i, name in enumerate(names)}
        groups = [clip.group for clip in clips]
        audits = [(record, _split(record, sides, number)) for sides, record in by_sides.items()]
        judged = [
            (record, split, verdict(split, groups, found, unlooked), found)
            for record, split in audits
            for found in looks
        ]
        record, split, said, found = max(judged, key=lambda j: max(j[2].share_group, j[2].near_duplicate))
        across = [] if found is None else _across(found, split, len(clips))
        return Leaks(
            record=record,
            verdict=said,
            n_splits=len(audits),
            n_leaking=len({id(split) for _, split, v, _ in judged if v.leaks}),
            looked=looks != [None],
            n_pairs=len(across),
            pairs=tuple(_pairs(across, clips, frames)),
        )

    def _look(self, record: Record, clips: Sequence[HeldClip]) -> NearDuplicates | str:
        """Search all clips for near-duplicates, by the run's own embeddings if the cache has them, else by others.

        Poses are not compared (see :meth:`.Features.near_duplicates`). A text says that they were not looked for.
        """
        own = [source["identity"] for source in record.sources]
        stores = sorted(self._stores, key=lambda s: s.identity not in own)
        stores = [s for s in stores if all(clip.video_sha256 in s for clip in clips)]
        if not stores:
            raise StoreError("no features in the cache hold all of its clips")
        store = next((s for s in stores if not sees_poses(s.identity)), None)
        if store is None:
            return UNLOOKED_IN_POSES
        what = store.folder, tuple(clip.clip_id for clip in clips)
        if what not in self._found:
            labels, groups = [clip.label for clip in clips], [clip.group for clip in clips]
            show = self._progress
            self._found[what] = quick_look(
                lambda: stored_embeddings(store, clips, progress=show), labels, groups, progress=show
            )
        return self._found[what] or UNLOOKED


def _is_as_then(clip: HeldClip, contents: Mapping[str, str]) -> bool:
    """Say whether a clip's video is the one that the run used under this name, if the run recorded it."""
    then = contents.get(clip.clip_id)
    return then is None or then == short_content(clip.video_sha256)


def _split(record: Record, sides: Sequence[Sequence[str]], number: Mapping[str, int]) -> Split:
    train, val, test = (np.array([number[name] for name in side], dtype=np.int64) for side in sides)
    return Split(rule=record.split, train=train, val=val, test=test, notes=())


def _across(found: NearDuplicates, split: Split, n_clips: int) -> list[tuple[float, int, int]]:
    """Return pairs between training (or validation) and test as (similarity, one, other), the most similar first."""
    tested = set(split.test.tolist())
    rows = pairs_across([split], found, n_clips)
    pairs = zip(found.similarity[rows].tolist(), found.pairs[rows].tolist(), strict=True)
    return [(alike, b, a) if a in tested else (alike, a, b) for alike, (a, b) in pairs]


def _pairs(across: Sequence[tuple[float, int, int]], clips: Sequence[HeldClip], frames: Frames | None) -> list[Pair]:
    shown: list[Pair] = []
    if frames is not None:
        for alike, a, b in across[:MOST_PAIRS]:
            train, test = (frames.glimpse(clips[i].clip_id) for i in (a, b))
            if train and test:
                shown.append(Pair(similarity=alike, train=train, test=test))
    return shown
