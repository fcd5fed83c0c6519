"""What the audit says of the splits that the runs really used, with the most alike pairs as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fitrec_cache.cache import Cache, HeldClip, load_features
from fitrec_cache.errors import FitrecError, StoreError
from fitrec_cache.leaks import Verdict, find_in_features, verdict
from fitrec_cache.near_duplicates import NearDuplicates
from fitrec_cache.pack import Features
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
    """The audit of one run's split.

    Attributes:
        record: The run.
        verdict: In numbers and in one line.
        n_pairs: Near-duplicate pairs between training and test.
        pairs: The most alike of them whose frames are at hand.
    """

    record: Record
    verdict: Verdict
    n_pairs: int
    pairs: tuple[Pair, ...]


def find_leaks(record: Record, cache: Cache, frames: Frames | None) -> Leaks | str:
    """Audit the split that a run used, or say why that is not possible."""
    try:
        known = {clip.clip_id: clip for clip in cache.clips()}
    except FitrecError as error:
        return str(error)
    sides = {name: [str(c) for c in record.run["split"].get(name, ())] for name in ("train", "val", "test")}
    names = [name for side in sides.values() for name in side]
    if gone := [name for name in names if name not in known]:
        return f"{len(gone)} of its clips are not in the cache, such as {gone[0]}"
    clips = [known[name] for name in names]
    try:
        found = find_in_features(_features(record, cache, clips))
    except FitrecError as error:
        return str(error)
    split = _split(record, sides)
    across = [] if found is None else _across(found, split)
    return Leaks(
        record=record,
        verdict=verdict(split, [clip.group for clip in clips], found),
        n_pairs=len(across),
        pairs=tuple(_pairs(across, clips, frames)),
    )


def _split(record: Record, sides: Mapping[str, Sequence[str]]) -> Split:
    ends = np.cumsum([0, *(len(side) for side in sides.values())]).tolist()
    train, val, test = (np.arange(a, b, dtype=np.int64) for a, b in pairwise(ends))
    return Split(rule=record.split, seed=record.seed, train=train, val=val, test=test, notes=())


def _features(record: Record, cache: Cache, clips: Sequence[HeldClip]) -> Features:
    """Load embeddings of all clips: the run's own if it has some, else any that the cache holds of all of them."""
    keys = [clip.video_sha256 for clip in clips]
    store = next((s for s in _own_first(record, cache) if all(key in s for key in keys)), None)
    if store is None:
        raise StoreError("no features in the cache hold all of its clips")
    values, times = load_features([store], keys)
    return Features(
        values=values,
        pts_seconds=times,
        clip_ids=[clip.clip_id for clip in clips],
        labels=[clip.label for clip in clips],
        groups=[clip.group for clip in clips],
    )


def _own_first(record: Record, cache: Cache) -> list[Store]:
    sources = record.run.get("sources") or []
    own: list[Mapping[str, Any]] = [source.get("identity", {}) for source in sources if isinstance(source, dict)]
    return sorted((s for s in cache.feature_stores() if len(s)), key=lambda s: s.identity not in own)


def _across(found: NearDuplicates, split: Split) -> list[tuple[float, int, int]]:
    """Return the pairs of a training or validation clip and a test clip, as (similarity, one, other), likest first."""
    first_test = len(split.train) + len(split.val)
    pairs = zip(found.similarity.tolist(), found.pairs.tolist(), strict=True)
    # Clips are numbered side by side, so in a pair (smaller first) the training clip comes first.
    return [(alike, a, b) for alike, (a, b) in pairs if a < first_test <= b]


def _pairs(across: Sequence[tuple[float, int, int]], clips: Sequence[HeldClip], frames: Frames | None) -> list[Pair]:
    shown: list[Pair] = []
    if frames is not None:
        for alike, a, b in across[:MOST_PAIRS]:
            train, test = (frames.glimpse(clips[i].clip_id) for i in (a, b))
            if train and test:
                shown.append(Pair(similarity=alike, train=train, test=test))
    return shown
