"""Features of clips in memory, with metadata of the clips, and loading them from a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.auditing.near_duplicates import Embeddings, NearDuplicates, embed, find_near_duplicates
from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, newest, parts_apart, pick_features
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import canonical_json
from fitrec_cache.common.progress import progress_bar
from fitrec_cache.dataset.clips import NO_COLUMNS, columns, one_spelling
from fitrec_cache.errors import AllAlikeError, StoreError, UsageError
from fitrec_cache.settings.paper import FRAME_SIDE
from fitrec_cache.settings.poses import POSE_DIM, sees_poses
from fitrec_cache.storage.sources import check_sources
from fitrec_cache.storage.store import Store
from fitrec_cache.video.sampling import clip_length
from fitrec_cache.wording import is_plain, plural

_COMPARED = 20_000  # the greatest number of clips that are searched for near-duplicates before a training
_UNKNOWN: Any = None
_BLOCK = 512  # clips in memory at a time: about 40 MB per 1,000 values of d


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Features of N clips in memory, with metadata of the clips.

    Attributes:
        values: float16 ``(N, T, d)`` (or float32 if made elsewhere, also as a tensor), or uint8 ``(N, T, 64, 64, 3)``
            for heads that are trained on frames.
        clip_ids: N names, all different.
        labels: N class names.
        pts_seconds: float64 ``(N, T)``; NaN where unknown (default: all).
        groups: N groups; None where unknown (default: all).
        extra: Further manifest columns of each clip; empty by default.
        contents: Content identifier of each clip's video, as in the cache; empty if unknown.
        sources: How the values were made, one entry per backbone; empty for features made elsewhere.
        name: Backbone names joined by ``+``.
        notes: Notes for the user.
    """

    values: NDArray[Any]
    clip_ids: Sequence[str]
    labels: Sequence[str]
    pts_seconds: NDArray[np.float64] = _UNKNOWN
    groups: Sequence[str | None] = _UNKNOWN
    extra: Sequence[Mapping[str, str]] = field(default_factory=list)
    contents: Sequence[str] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    name: str = "features"
    notes: list[str] = field(default_factory=list)
    #: What :meth:`near_duplicates` found, by the digest of what was searched.
    _looked: dict[str, NearDuplicates | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _as_array(self.values))
        object.__setattr__(self, "extra", self.extra or [NO_COLUMNS] * len(self.clip_ids))
        if self.pts_seconds is _UNKNOWN:
            object.__setattr__(self, "pts_seconds", np.full(np.shape(self.values)[:2], np.nan))
        if self.groups is _UNKNOWN:
            object.__setattr__(self, "groups", [None] * len(self.clip_ids))

    def __repr__(self) -> str:
        """Return a description in one line, regardless of the number of clips."""
        what = f"{len(self.clip_ids)} clips of {len(set(self.labels))} classes"
        return f"Features({self.name!r}, {what}, values {self.values.dtype} {self.values.shape})"

    @classmethod
    def of_clips(cls, clips: Sequence[HeldClip], **more: Any) -> Features:
        """Return features of a cache's clips; ``more`` has the values and other fields that are not part of a clip."""
        return cls(**columns(clips), contents=[clip.video_sha256 for clip in clips], **more)

    @property
    def columns(self) -> dict[str, Any]:
        """The columns by which clips are split, one list each, for :func:`fitrec_cache.dataset.folds.make_folds`."""
        return {"clip_ids": self.clip_ids, "labels": self.labels, "groups": self.groups, "extra": self.extra}

    def digest(self) -> str:
        """Return the sha256 of values, ids, labels and groups as they are now: all data that affect a training.

        Sides of a split, and the shape of the values, are not included: the run's settings contain them.
        """
        found = hashlib.sha256(canonical_json([self.clip_ids, self.labels, self.groups]).encode())
        found.update(str(self.values.dtype).encode())
        found.update(np.ascontiguousarray(self.values).view(np.uint8).reshape(-1).data)
        return found.hexdigest()

    def near_duplicates(self, *, progress: bool = False) -> NearDuplicates | None:
        """Return the result of :func:`quick_look`, computed anew only if something has changed since the last call.

        Poses are not compared: they are alike in different recordings of an exercise. None if there is nothing else.
        """
        if self.only_poses:
            return None
        if (key := self.digest()) not in self._looked:
            self._looked.clear()
            found = quick_look(lambda: embed([self._without_poses()]), self.labels, self.groups, progress=progress)
            self._looked[key] = found
        return self._looked[key]

    @property
    def only_poses(self) -> bool:
        """Whether there is nothing but poses."""
        return bool(self.pose_dim == self.values.shape[2])

    @property
    def pose_dim(self) -> int:
        """How many of a frame's values are poses; :func:`load_cached` puts them last."""
        poses = sum(source["kind"] == "features" and sees_poses(source["identity"]) for source in self.sources)
        return min(poses * POSE_DIM, self.values.shape[2]) if poses else 0

    def _without_poses(self) -> NDArray[Any]:
        return self.values[:, :, : self.values.shape[2] - self.pose_dim]

    def clip_seconds(self) -> float | None:
        """Return the median length of the clips, from the times of their frames; None if these are unknown."""
        known = [length for times in self.pts_seconds.tolist() if (length := clip_length(times)) is not None]
        return round(float(np.median(known)), 2) if known else None

    def take(self, clips: NDArray[np.int64]) -> Features:
        """Return the clips with these numbers."""
        return replace(
            self,
            values=self.values[clips],
            pts_seconds=self.pts_seconds[clips],
            clip_ids=[self.clip_ids[i] for i in clips],
            labels=[self.labels[i] for i in clips],
            groups=[self.groups[i] for i in clips],
            extra=[self.extra[i] for i in clips],
            contents=[self.contents[i] for i in clips] if self.contents else [],
        )

    def by_id(self) -> Features:
        """Return the clips sorted by their ids; the same object if they are sorted already."""
        order = np.argsort(self.clip_ids, kind="stable")
        return self.take(order) if (np.diff(order) < 0).any() else self


def _as_array(values: Any) -> Any:
    """Return values as an array, also those of a tensor or of a list of tensors; None as it is.

    Raises:
        UsageError: If they are not of one shape.
    """
    if values is None:
        return None
    if isinstance(values, list | tuple):
        values = [_as_array(value) if hasattr(value, "detach") else value for value in values]
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values  # NumPy has no bfloat16
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UsageError(
            "features: values of several shapes: expected (N, T, d), the same T for every clip. Take as many frames of "
            "each, such as clip[np.linspace(0, len(clip) - 1, 20).round().astype(int)]"
        ) from error


def as_ours(data: Features, where: str) -> Features:
    """Check features made elsewhere and normalise their values and names; the same object if nothing changes.

    Args:
        data: Features whose ids, labels and groups are texts; nothing else has been checked.
        where: Where they are, for error messages: ``in memory`` or ``in file NAME``.

    Raises:
        UsageError: If there are none, something is missing for a clip, ids are repeated, names are not plain text, or a
            value is not a number that float32 can represent.
    """
    values, times = np.asarray(data.values), np.asarray(data.pts_seconds)
    frames = values.dtype == np.uint8 and values.shape[2:] == (FRAME_SIDE, FRAME_SIDE, 3)
    if not frames and (values.dtype.kind != "f" or values.ndim < 3):
        got = f"got values of {values.dtype} {values.shape}"
        hint = ". For one vector per clip give values[:, None]" * (values.ndim == 2)
        hint += ". Give a list of one array (T, d) for each clip, all of one shape" * (values.dtype == object)
        raise UsageError(f"features {where}: {got}, expected floats (N, T, d), or uint8 frames (N, T, 64, 64, 3){hint}")
    lengths = {"values": len(values), "pts_seconds": len(data.pts_seconds), "clip_ids": len(data.clip_ids)}
    lengths |= {"labels": len(data.labels), "groups": len(data.groups), "extra": len(data.extra)}
    lengths |= {"contents": len(data.contents)} if data.contents else {}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"features {where}: got {lengths}, expected one of each for every clip")
    if not values.size:
        raise UsageError(f"features {where} are empty: values of shape {values.shape}")
    if times.shape != values.shape[:2]:
        raise UsageError(f"features {where}: pts_seconds of shape {times.shape}, expected (N, T) = {values.shape[:2]}")
    if strange := [content for content in data.contents if not isinstance(content, str)]:
        raise UsageError(f"features {where}: contents hold {strange[0]!r}, expected texts: hashes of videos")
    try:
        check_sources(data.sources)
    except ValueError as error:
        raise UsageError(f"features {where}: {error}. Leave them out if they were made elsewhere") from error
    if repeated := len(data.clip_ids) - len(set(data.clip_ids)):
        raise UsageError(f"features {where}: {repeated} clip ids are repeated; each clip must have its own")
    if bare := [name for name, label in zip(data.clip_ids, data.labels, strict=True) if not label.strip()]:
        have = plural(len(bare), "clip has", "clips have")
        raise UsageError(f"features {where}: {have} no label, such as {bare[0]}: leave them out")
    if odd := [name for name in (*data.clip_ids, *data.labels, *data.groups, data.name) if name and not is_plain(name)]:
        raise UsageError(f"features {where}: control or undecodable characters in {odd[0]!r}: rename it")
    if odd := [value for each in data.extra for value in each.values() if not isinstance(value, str)]:
        raise UsageError(f"features {where}: extra holds {odd[0]!r}, expected texts")
    if values.dtype.kind == "f" and values.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):  # values too large for float32 become infinite, and are refused below
            values = values.astype(np.float32)
    blocks = np.array_split(values, -(-len(values) // _BLOCK))  # in blocks, to save memory
    if values.dtype.kind == "f" and not all(np.isfinite(block).all() for block in blocks):
        bad = [name for name, clip in zip(data.clip_ids, values, strict=True) if not np.isfinite(clip).all()]
        have = plural(len(bad), "clip has", "clips have")
        raise UsageError(
            f"features {where}: {have} values that are not finite, such as {bad[0]}: replace them, by 0 for instance "
            "where nobody was found in a frame"
        )
    labels = [one_spelling(label) for label in data.labels]
    groups = [one_spelling(group) if group else None for group in data.groups]
    same = labels == data.labels and groups == data.groups and values is data.values and times is data.pts_seconds
    return data if same else replace(data, values=values, pts_seconds=times, labels=labels, groups=groups)


def quick_look(
    embeddings: Callable[[], Embeddings], labels: Sequence[str], groups: Sequence[str | None], *, progress: bool = False
) -> NearDuplicates | None:
    """Return the pairs of clips that look like one recording; 1,332 clips of (20, 2048) take half a CPU-second.

    Returns:
        The pairs. None for more than 20,000 clips, which would delay a training for too long, and if nearly all clips
        look alike.
    """
    if len(labels) > _COMPARED:
        return None
    try:
        return find_near_duplicates(embeddings(), labels=labels, groups=groups, progress=progress)
    except AllAlikeError:  # too many pairs, or no threshold; the verdict then refers to `audit`, which says what to do
        return None


def stored_embeddings(store: Store, clips: Sequence[HeldClip], *, progress: bool = False) -> Embeddings:
    """Reduce stored features to one vector per clip, block by block in the order on disk.

    Args:
        store: A feature store that holds all of the clips.
        clips: N clips.
        progress: Show a progress bar on standard error.

    Returns:
        The vectors in the order of ``clips``.
    """
    keys, order = by_part(store, clips)
    with progress_bar(total=len(keys), unit="clip", what="load", show=progress, after=1) as bar:
        parts = (keys[i : i + _BLOCK] for i in range(0, len(keys), _BLOCK))
        made = embed(store.rows(part, ("features",), bar.update)["features"] for part in parts)
    return Embeddings(vectors=made.vectors[order], halves=made.halves[order] if len(made.halves) else made.halves)


def by_part(store: Store, clips: Sequence[HeldClip]) -> tuple[list[str], list[int]]:
    """Return the keys of clips in the order of a store's parts, and the position of each clip in that order."""
    wanted = {clip.video_sha256 for clip in clips}
    keys = [key for key in store if key in wanted]
    place = {key: i for i, key in enumerate(keys)}
    return keys, [place[clip.video_sha256] for clip in clips]


def distinct_clips(cache: Cache) -> tuple[list[HeldClip], list[str]]:
    """Return the usable clips, each content once, and notes on clips that were left out or are not extracted yet.

    The same video under two names could be on two sides of a split; the latest name and label are used.
    """
    clips = cache.clips()
    latest, notes = newest(clips), cache.notes(clips)
    again: dict[tuple[str, str], list[tuple[HeldClip, HeldClip]]] = {}
    for clip in clips:
        if not clip.problem and (same := latest[clip.video_sha256]) is not clip:
            again.setdefault((clip.label, same.label), []).append((clip, same))
    for (label, now), pairs in again.items():
        labels = "" if label == now else f", now of class {now}, not {label}"
        clip, same = pairs[0]
        more = f" and {len(pairs) - 1} more have the same content as others" * (len(pairs) > 1)
        notes.append(f"{clip.clip_id} has the same content as {same.clip_id}{more}{labels}: left out")
    if lost := sorted({c.label for c in clips if not c.problem} - {c.label for c in latest.values()}):
        notes.append(
            f"{plural(len(lost), 'class has', 'classes have')} no clip left, as other classes have the same videos: "
            f"{', '.join(lost)}"
        )
    return sorted(latest.values(), key=lambda c: c.clip_id), notes


def clips_in(cache: Cache, stores: Sequence[Store], what: str) -> tuple[list[HeldClip], list[str]]:
    """Return the distinct clips that all of these stores hold, and notes; ``what`` names what the other clips lack.

    Raises:
        StoreError: If there is none.
    """
    held, notes = distinct_clips(cache)
    clips = [c for c in held if all(c.video_sha256 in s for s in stores)]
    if not clips:
        gone = sum(c.problem == TAKEN_OUT for c in cache.entries())
        back = f"; {gone} were removed; extract with their VIDEOS brings them back" if gone else ""
        raise StoreError(f"no clip in {cache.folder} has {what}: run extract first{back}")
    if left_out := len(held) - len(clips):
        notes.append(f"{plural(left_out, 'clip has', 'clips have')} no {what}: left out")
    return clips, [*notes, *parts_apart(clips)]


def cached_backbones(cache: Cache) -> list[str]:
    """Return the names of the backbones with features in a cache, sorted."""
    return sorted({str(store.identity["backbone"]) for store in cache.filled_features()})


def _only_backbone(cache: Cache) -> str:
    """Return the name of the only backbone with features in a cache.

    Raises:
        UsageError: If there are several.
        StoreError: If there is none.
    """
    names = cached_backbones(cache)
    if not names:
        raise StoreError(f"{cache.folder} holds no features: run `fitrec-cache extract` first")
    if len(names) > 1:
        raise UsageError(f"{cache.folder} holds features of {', '.join(names)}: choose with --backbone")
    return names[0]


@plain_arguments
def load_cached(
    cache: Cache, backbones: Sequence[str] = (), *, preset: str | None = None, progress: bool = False
) -> Features:
    """Load the features of all clips of a cache into memory; those of several backbones are concatenated.

    If no backbone is given, the only one in the cache is used.

    Raises:
        StoreError: If no clip has features of every backbone, or a part is damaged.
        UsageError: If a backbone is not cached, ambiguous or named twice, or they differ in T.
    """
    backbones = backbones or [_only_backbone(cache)]
    picked = [pick_features(cache, b, preset=preset) for b in backbones]
    stores = [store for store, _ in picked]
    folders = [store.folder for store in stores]
    if repeated := [name for name, folder in zip(backbones, folders, strict=True) if folders.count(folder) > 1]:
        raise UsageError(f"backbone {repeated[-1]} is named twice: name each once")
    stores.sort(key=lambda store: sees_poses(store.identity))  # poses last: near-duplicates leave them out
    clips, notes = clips_in(cache, stores, f"features of {'+'.join(backbones)}")
    keys = [clip.video_sha256 for clip in clips]
    with progress_bar(total=len(keys) * len(stores), unit="clip", what="load", show=progress, after=1) as bar:
        loaded = [store.rows(keys, ("features", "pts_seconds"), bar.update) for store in stores]
    values = [each["features"] for each in loaded]
    if len(lengths := {each.shape[1] for each in values}) > 1:
        raise UsageError(f"features with different numbers of frames cannot be concatenated: T = {sorted(lengths)}")
    return Features.of_clips(
        clips,
        values=values[0] if len(values) == 1 else np.concatenate(values, axis=2),
        pts_seconds=loaded[0]["pts_seconds"],
        sources=[{"kind": "features", "identity": s.identity, "origin": s.origin()} for s in stores],
        name="+".join(s.identity["backbone"] for s in stores),
        notes=[*notes, *(note for _, told in picked for note in told)],
    )
