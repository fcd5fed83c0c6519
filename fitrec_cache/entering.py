"""What a cache is to know of each clip from now on: what it was told of that video before stays, which is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.cache import Cache, HeldClip, by_content
from fitrec_cache.clips import Clip
from fitrec_cache.find_clips import ClipList
from fitrec_cache.spans import is_part
from fitrec_cache.wording import plural, some


class Entering:
    """Makes the entries of clips, and collects what is to be said of them.

    A video is known by its content: group and columns go with it, whatever its file is called. Only content that is new
    to the cache takes them from the clip whose name, and place, it takes.

    Args:
        cache: The cache.
        found: The clips asked for.
    """

    def __init__(self, cache: Cache, found: ClipList) -> None:
        self.cache, self.found = cache, found
        self.groups_known = False
        self._kept: list[str] = []
        self._joined: list[str] = []
        self._failed: list[str] = []
        self._moved: list[str] = []
        self._replaced: list[str] = []
        self._heirs: list[str] = []
        self._relabelled: list[str] = []
        self._without_group: list[str] = []

    def entry(self, clip: Clip, key: str, problem: str) -> HeldClip | None:
        """Return what is to be written of a clip; None where the cache has that.

        Args:
            clip: The clip as it was found.
            key: What its content is known by; empty if it could not be read.
            problem: Why it cannot be used, empty if it can.
        """
        entry = HeldClip(
            clip_id=clip.clip_id,
            video_sha256=key,
            label=clip.label,
            group=clip.group,
            extra=clip.extra,
            problem=problem,
        )
        self.groups_known |= entry.group is not None
        if self.cache.holds(entry):
            return None
        before = self.cache.clip(clip.clip_id)
        if before is None and not clip.clip_id.isascii():  # by its name before names had one spelling
            before = self.cache.clip(normalize("NFD", clip.clip_id))
        if problem and before is not None and not before.problem:
            self._failed.append(clip.clip_id)
            return None  # what is stored of it stays usable
        entry, moved = self._with_what_was_told(entry, clip, before)
        self.groups_known |= entry.group is not None
        if self.cache.holds(entry):
            return None
        if before is None:
            if entry.group is None and not problem and not is_part(key):  # parts have their file's
                self._without_group.append(clip.clip_id)
        elif not before.problem:
            if before.label != entry.label:
                self._relabelled.append(f"{clip.clip_id} ({before.label} -> {entry.label})")
            if moved:
                self._moved.append(clip.clip_id)
            elif before.video_sha256 != key and entry.group and entry.group != clip.group:
                self._heirs.append(f"{clip.clip_id} ({entry.group})")
            elif before.video_sha256 != key:
                self._replaced.append(clip.clip_id)
        return entry

    def _with_what_was_told(self, entry: HeldClip, clip: Clip, before: HeldClip | None) -> tuple[HeldClip, bool]:
        """Return an entry with group and columns of before, and whether these are those of another name."""
        by_name = before is not None and before.video_sha256 == entry.video_sha256
        known = None if by_name else self._of_content(entry.video_sha256)
        if known is not None:
            group, extra = clip.group or known.group, known.extra  # another name may say another group
        elif before is not None:
            group, extra = before.group, before.extra
        else:
            return entry, False
        meant = replace(entry, **self.found.columns_beside(clip, group, extra))
        self._kept += [clip.clip_id] * (meant != entry)
        return meant, known is not None

    def of_one_content(self, first: HeldClip, held: Sequence[HeldClip]) -> HeldClip:
        """Return the clip that is to count of one content, with what the others of that content tell, if it has none.

        Args:
            first: The clip.
            held: All that the cache has of this content, ``first`` too.
        """
        group, extra = first.group, first.extra
        for clip in sorted(held, key=lambda clip: clip.since, reverse=True):
            group = group or (None if self.found.has_groups else clip.group)
            extra = extra or ({} if self.found.has_columns else clip.extra)
        meant = replace(first, group=group, extra=extra)
        self._joined += [first.clip_id] * (meant != first)
        return meant

    def _of_content(self, key: str) -> HeldClip | None:
        """Return the clip that had this content under another name, as before a file was renamed or moved, if any."""
        place = np.searchsorted(self._hashes, hash(key))
        if not key or place == len(self._hashes) or self._hashes[place] != hash(key):
            return None
        return self._by_content.get(key)

    @cached_property
    def _hashes(self) -> NDArray[np.int64]:
        """Hashes of the contents that the cache began with, sorted: 8 bytes a clip, as most that are asked are new."""
        return np.sort(self.cache.content_hashes())

    @cached_property
    def _by_content(self) -> dict[str, HeldClip]:
        """The clips that the cache began with, by content; made only where one has another name by now."""
        return by_content(self.cache.entries())

    def notes(self, *, erased: bool) -> list[str]:
        """Say what became of groups, columns and earlier videos, and whose class is another.

        Args:
            erased: Whether what is taken out was erased.
        """
        notes = []
        if n := len(self._failed):
            still = "; nothing of them was erased" if erased else ""
            notes.append(
                f"{plural(n, 'clip')} that failed now will still be trained on, with the features that there are, as "
                f"the video that had that name before{still}: {_named(self._failed)}. To take them out, remove their "
                "files, and rows of a manifest or list that name them, and give --prune"
            )
        if n := len(self._kept):
            many = plural(n, "clip keeps", "clips keep")
            notes.append(f"{many} group or columns of before: {_named(self._kept)}")
        for names, what in (
            (self._joined, "group or columns of another one of the same content"),
            (self._moved, "the video that another one had before"),
            (self._replaced, "other content than before, in the place of the earlier video"),
            (self._heirs, "other content than before, in the place, and the group, of the earlier video"),
        ):
            if n := len(names):
                notes.append(f"{plural(n, 'clip has', 'clips have')} {what}: {_named(names)}")
        if not self.groups_known:
            notes += self.found.about_groups
        elif not self.found.has_groups and (n := len(self._without_group)):
            notes.append(
                f"{plural(n, 'new clip has', 'new clips have')} no group, as others have, so each counts as one of its "
                f"own: --group-by, or a manifest's column group, gives them one: {_named(self._without_group)}"
            )
        if n := len(self._relabelled):
            many = plural(n, "clip is", "clips are")
            notes.append(f"{many} of another class than before: {_named(self._relabelled)}")
        return notes


def _named(clips: Sequence[str]) -> str:
    """Return the first by name, as they come in no certain order."""
    return some(sorted(clips))
