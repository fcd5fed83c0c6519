"""What the audit says of the splits that the runs really used, with the most alike pairs as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fitrec_cache.cache import Cache, HeldClip, load_features
from fitrec_cache.errors import FitrecError, StoreError
from fitrec_cache.features import Features
from fitrec_cache.leaks import Verdict, pairs_across, verdict
from fitrec_cache.near_duplicates import NearDuplicates
from fitrec_cache.page.pictures import Clip, Frames
from fitrec_cache.page.records import Record
from fitrec_cache.splits import Split
from fitrec_cache.store import Store

MOST_PAIRS = 4


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A training clip and a test clip that look like one recording."""

    similarity: float
    train: Clip
    test: Clip


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """The audit of all splits that runs of one rule used: of its seeds and folds.

    Attributes:
        record: The run whose split leaks most; the first where none does.
        verdict: On that one, in numbers and in one line.
        n_splits: How many different splits there are.
        n_leaking: How many of them leak.
        looked: Whether clips that look alike were looked for.
        n_pairs: Near-duplicate pairs between training and test of that run's split.
        pairs: The most alike of them whose frames are at hand.
    """

    record: Record
    verdict: Verdict
    n_splits: int
    n_leaking: int
    looked: bool
    n_pairs: int
    pairs: tuple[Pair, ...]


def find_leaks(records: Sequence[Record], cache: Cache, frames: Frames | None) -> Leaks | str:
    """Audit the splits that runs of one rule used, or say why that is not possible."""
    try:
        known = {clip.clip_id: clip for clip in cache.clips()}
    except FitrecError as error:
        return str(error)
    by_sides: dict[tuple[tuple[str, ...], ...], Record] = {}
    for each in records:
        by_sides.setdefault(tuple(_sides(each)), each)
    names = sorted({name for sides in by_sides for side in sides for name in side})
    if gone := [name for name in names if name not in known]:
        return f"{len(gone)} of its clips are not in the cache, such as {gone[0]}"
    clips = [known[name] for name in names]
    try:
        found = _features(records[0], cache, clips).near_duplicates
    except FitrecError as error:
        return str(error)
    number = {name: i for i, name in enumerate(names)}
    groups = [clip.group for clip in clips]
    audits = [(record, _split(record, sides, number)) for sides, record in by_sides.items()]
    judged = [(record, split, verdict(split, groups, found)) for record, split in audits]
    record, split, said = max(judged, key=lambda j: max(j[2].share_group, j[2].near_duplicate))
    across = [] if found is None else _across(found, split)
    return Leaks(
        record=record,
        verdict=said,
        n_splits=len(judged),
        n_leaking=sum(v.leaks for _, _, v in judged),
        looked=found is not None,
        n_pairs=len(across),
        pairs=tuple(_pairs(across, clips, frames)),
    )


def _sides(record: Record) -> list[tuple[str, ...]]:
    """Return the clips of training, validation and test."""
    return [tuple(str(c) for c in record.run["split"].get(name, ())) for name in ("train", "val", "test")]


def _split(record: Record, sides: Sequence[Sequence[str]], number: Mapping[str, int]) -> Split:
    train, val, test = (np.array([number[name] for name in side], dtype=np.int64) for side in sides)
    return Split(rule=record.split, seed=record.seed, train=train, val=val, test=test, notes=())


def _features(record: Record, cache: Cache, clips: Sequence[HeldClip]) -> Features:
    """Load embeddings of all clips: the run's own if it has some, else any that the cache holds of all of them."""
    keys = [clip.video_sha256 for clip in clips]
    store = next((s for s in _own_first(record, cache) if all(key in s for key in keys)), None)
    if store is None:
        raise StoreError("no features in the cache hold all of its clips")
    values, times = load_features([store], keys)
    return Features.of_clips(clips, values=values, pts_seconds=times)


def _own_first(record: Record, cache: Cache) -> list[Store]:
    sources = record.run.get("sources") or []
    own: list[Mapping[str, Any]] = [source.get("identity", {}) for source in sources if isinstance(source, dict)]
    return sorted((s for s in cache.feature_stores() if len(s)), key=lambda s: s.identity not in own)


def _across(found: NearDuplicates, split: Split) -> list[tuple[float, int, int]]:
    """Return the pairs of a training or validation clip and a test clip, as (similarity, one, other), likest first."""
    tested = set(split.test.tolist())
    rows = pairs_across([split], found)
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
