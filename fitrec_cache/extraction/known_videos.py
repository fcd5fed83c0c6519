"""Look up what a cache already knows about a video (group, manifest columns) by its content.

Thus renaming, renumbering or cutting a file into parts loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, newest
from fitrec_cache.common.files import is_there
from fitrec_cache.dataset.clips import Clip, named_group
from fitrec_cache.dataset.find_clips import ClipList
from fitrec_cache.storage.root import MARKER
from fitrec_cache.video.contents import content_of
from fitrec_cache.video.spans import file_of


class KnownVideos:
    """All entries that the cache held when this object was created, including earlier ones whose name has been reused.

    They are read when the first content is looked up, and again when the first is found. In between only 16 bytes are
    kept per entry, because usually every content is new or has its old name; if not, whole entries.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache, self._until = cache, cache.clip_store.newest

    def of(self, key: str, named: HeldClip | None) -> HeldClip | None:
        """Return the entry with what is known about a video.

        Args:
            key: The identifier of its content; empty if unknown.
            named: The current entry of the clip's name, if there is one; another process may have just added it.

        Returns:
            Among the entries with this content: ``named`` if it is the latest, or else the latest that has a group, or
            else the latest. If the content is new: an entry of its file, if the parts of the file have one group;
            otherwise ``named``, which it replaces, unless that clip was taken out.
        """
        names = self._names(key)
        same = named is not None and named.video_sha256 == key
        if named is not None and same and (names == 1 or named.since > self._until or named == self._latest.get(key)):
            return named
        if names and (known := self._by_content.get(key) or self._by_file.get(file_of(key))):
            return known
        return None if named is not None and named.problem == TAKEN_OUT else named

    def _names(self, key: str) -> int:
        """Return how many names a video and its parts have had; 64-bit hashes make it too high once in 10 ** 14."""
        first, last = (np.searchsorted(self._hashes, hash(file_of(key)), side) for side in ("left", "right"))
        return int(last - first) if key else 0

    @cached_property
    def _hashes(self) -> NDArray[np.int64]:
        """Hashes of the files' contents, sorted; each occurs once for every name that the content had."""
        pairs = ((hash(file_of(each.video_sha256)), hash(each.clip_id)) for each in self._entries())
        found: NDArray[np.int64] = np.fromiter(chain.from_iterable(pairs), dtype=np.int64).reshape(-1, 2)
        return np.unique(found, axis=0)[:, 0] if len(found) else found[:, 0]

    @cached_property
    def _latest(self) -> dict[str, HeldClip]:
        return newest(sorted(self._entries(), key=lambda clip: clip.clip_id))

    @cached_property
    def _by_content(self) -> dict[str, HeldClip]:
        latest = {(c.video_sha256, c.clip_id): c for c in sorted(self._entries(), key=lambda c: c.since)}
        return {c.video_sha256: c for c in sorted(latest.values(), key=lambda c: (c.group is not None, c.since))}

    @cached_property
    def _by_file(self) -> dict[str, HeldClip]:
        """For each file whose parts have exactly one group, an entry with that group.

        Only the valid entries of the file's clips are considered; earlier entries only if there are no valid ones.
        """
        told: dict[str, list[HeldClip]] = {}
        for clip in self._by_content.values():
            if clip.group is not None:
                told.setdefault(file_of(clip.video_sha256), []).append(clip)
        counting = {file: [c for c in clips if self._cache.holds(c)] or clips for file, clips in told.items()}
        return {file: clips[0] for file, clips in counting.items() if len({c.group for c in clips}) == 1}

    def _entries(self) -> Iterator[HeldClip]:
        """Yield the entries of usable videos; unusable files, such as empty ones, may share a content by chance."""
        return (clip for clip in self._cache.all_entries() if clip.since <= self._until and not clip.problem)


def columns_beside(found: ClipList, clip: Clip, known: HeldClip, before: HeldClip | None) -> dict[str, Any]:
    """Return ``group`` and ``extra`` of a clip, completed by what the cache knows about its video.

    A value given by a manifest is kept until another manifest gives that column, or the groups, again.

    Args:
        found: The clips asked for.
        clip: One of them.
        known: The entry with what is known about its video.
        before: The entry of its name. If ``known`` is a copy of the same video that is asked for too, the columns of
            this entry take precedence over those of ``known``.
    """
    copies = before is not None and before.video_sha256 == known.video_sha256 and known.clip_id in found.names
    own = before.extra if before is not None and copies and before.problem != TAKEN_OUT else {}
    return {
        "group": clip.group if found.has_groups else group_beside(clip, known),
        "extra": {**known.extra, **own, **clip.extra},
    }


def group_beside(clip: Clip, known: HeldClip) -> str | None:
    """Return the group of a clip: the group that the cache knows takes precedence over one read from the file's name.

    The exception is a known group that was itself read from a file's name: then the group in the new name is used.
    """
    if known.group == named_group(file_of(known.clip_id)):
        return clip.group or known.group
    return known.group or clip.group


def as_extracted(found: ClipList, cache: Path, *, read: bool = False) -> list[Clip]:
    """Return clips with the groups and columns that they will have in a cache; the cache need not exist.

    Args:
        found: The clips.
        cache: The cache folder.
        read: Whether to read the files, which recognises renamed files by their content; otherwise names are used.

    Raises:
        StoreError: If it is not a cache, or is damaged.
    """
    if not is_there(cache / MARKER):  # no cache, or one that was just being created
        return list(found.clips)
    opened = Cache(cache)
    told, held = KnownVideos(opened), {clip.clip_id: clip for clip in opened.entries()}

    def as_in_cache(clip: Clip) -> Clip:
        known = before = held.get(clip.clip_id)
        if read and clip.path is not None:
            known = told.of(content_of(clip.path, clip.span), before)
        return clip if known is None else replace(clip, **columns_beside(found, clip, known, before))

    return [as_in_cache(clip) for clip in found.clips]
