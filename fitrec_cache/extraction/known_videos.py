"""What a cache was ever told of each video, by its content: files may be renamed, numbered anew, and cut into parts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip
from fitrec_cache.dataset.clips import Clip, named_group
from fitrec_cache.dataset.find_clips import ClipList
from fitrec_cache.video.spans import file_of


class KnownVideos:
    """The entries that a cache holds when this is made, earlier ones too, as another may have their names by now.

    They are read when the first content is asked for, and again when the first is found; until then 16 bytes are kept
    of each, as most often all is new, or has its old name.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache, self._until = cache, cache.newest_part

    def of(self, key: str, named: HeldClip | None) -> HeldClip | None:
        """Return the entry that tells what is known of a video.

        Args:
            key: What its content is known by; empty if nobody knows.
            named: The entry of its name, if there is one; it may have come since, from another process.

        Returns:
            Of the entries of this content the latest with a group, else the latest. Of new content that of its file, if
            parts of it have one group; else ``named``, whose place it takes, unless that was taken out.
        """
        names = self._names(key)
        if named is not None and named.video_sha256 == key and (names == 1 or named.since > self._until):
            return named
        if names and (known := self._by_content.get(key) or self._by_file.get(file_of(key))):
            return known
        return None if named is not None and named.problem == TAKEN_OUT else named

    def _names(self, key: str) -> int:
        """Return how many names a video and its parts had, by 64-bit hashes: by chance more, once in 10 ** 14."""
        first, last = (np.searchsorted(self._hashes, hash(file_of(key)), side) for side in ("left", "right"))
        return int(last - first) if key else 0

    @cached_property
    def _hashes(self) -> NDArray[np.int64]:
        """Hashes of the files' contents, sorted, each once for every name that it had."""
        pairs = ((hash(file_of(each.video_sha256)), hash(each.clip_id)) for each in self._entries())
        found: NDArray[np.int64] = np.fromiter(chain.from_iterable(pairs), dtype=np.int64).reshape(-1, 2)
        return np.unique(found, axis=0)[:, 0] if len(found) else found[:, 0]

    @cached_property
    def _by_content(self) -> dict[str, HeldClip]:
        latest = {(c.video_sha256, c.clip_id): c for c in sorted(self._entries(), key=lambda c: c.since)}
        return {c.video_sha256: c for c in sorted(latest.values(), key=lambda c: (c.group is not None, c.since))}

    @cached_property
    def _by_file(self) -> dict[str, HeldClip]:
        """An entry with the group of each file that has one, by the clips of it that count, else by earlier ones."""
        told: dict[str, list[HeldClip]] = {}
        for clip in self._by_content.values():
            if clip.group is not None:
                told.setdefault(file_of(clip.video_sha256), []).append(clip)
        counting = {file: [c for c in clips if self._cache.holds(c)] or clips for file, clips in told.items()}
        return {file: clips[0] for file, clips in counting.items() if len({c.group for c in clips}) == 1}

    def _entries(self) -> Iterator[HeldClip]:
        """Yield what was told of videos; files that are none, such as empty ones, may share a content by chance."""
        return (clip for clip in self._cache.all_entries() if clip.since <= self._until and not clip.problem)


def columns_beside(found: ClipList, clip: Clip, known: HeldClip, before: HeldClip | None) -> dict[str, Any]:
    """Return ``group`` and ``extra`` of a clip of which a cache knows more.

    What a manifest gave stays until another gives that column, or group, anew.

    Args:
        found: The clips asked for.
        clip: One of them.
        known: The entry that tells what is known of its video.
        before: The entry of its name. If ``known`` is a copy that is asked for too, its own columns count more.
    """
    copies = before is not None and before.video_sha256 == known.video_sha256 and known.clip_id in found.names
    own = before.extra if before is not None and copies and before.problem != TAKEN_OUT else {}
    return {
        "group": clip.group if found.has_groups else group_beside(clip, known),
        "extra": {**known.extra, **own, **clip.extra},
    }


def group_beside(clip: Clip, known: HeldClip) -> str | None:
    """Return the group of a clip of which a cache knows more: what was told counts, not what a file's name says.

    Only where the group that is known was read off a name itself, that of a new name counts.
    """
    if known.group == named_group(file_of(known.clip_id)):
        return clip.group or known.group
    return known.group or clip.group
