"""Build the cache entry of each clip: what was known of the video before is kept, and changes are reported as notes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property

from fitrec_cache.cache import Cache, HeldClip
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.dataset.find_clips import ClipList
from fitrec_cache.extraction.known_videos import KnownVideos, columns_beside
from fitrec_cache.storage.store import Store
from fitrec_cache.video.spans import is_part
from fitrec_cache.wording import listed, plural, some


class EntryBuilder:
    """Builds the entries of clips, and collects the notes about changes.

    A video is recognised by its content: its group and manifest columns stay with it, whatever its file is called. Only
    content that is new to the cache takes them from the earlier clip of the same name, which it replaces.

    Args:
        cache: The cache.
        found: The clips asked for.
        stores: The feature stores asked for.
    """

    def __init__(self, cache: Cache, found: ClipList, stores: Sequence[Store]) -> None:
        self.cache, self.found, self.stores = cache, found, stores
        self._told = KnownVideos(cache)
        self.groups_known = False
        self._kept: set[str] = set()
        self._kept_group = False
        self._kept_columns: set[str] = set()
        self._joined: set[str] = set()
        self._failed: set[str] = set()
        self._moved: set[str] = set()
        self._replaced: set[str] = set()
        self._heirs: set[str] = set()
        self._relabelled: set[str] = set()
        self._without_group: set[str] = set()

    def entry(self, clip: Clip, key: str, problem: str) -> HeldClip | None:
        """Return the entry to be written for a clip; None if nothing has to be written.

        Args:
            clip: The clip as it was found.
            key: The identifier of its content; empty if it could not be read.
            problem: Why it cannot be used; empty if it can.
        """
        if self.holds(clip, key, problem):
            return None
        entry = _as_found(clip, key, problem)
        before = self.cache.clip(clip.clip_id)
        if problem and before is not None and not before.problem:
            if any(before.video_sha256 in store for store in self.stores):
                self._failed.add(clip.clip_id)
            return None  # what is stored for it remains usable
        known = self._told.of(key, before)
        if known is None:
            if entry.group is None and not problem and not is_part(key):  # parts are grouped by their file
                self._without_group.add(clip.clip_id)
            return entry
        meant = replace(entry, **columns_beside(self.found, clip, known, before))
        if meant.group is None and before is not None and before.video_sha256 == key:
            meant = replace(meant, group=self._group_of_a_copy(before))
        if meant != entry and (known is not before or known.video_sha256 == key or known.problem):
            self._keeps(clip.clip_id, entry, meant)
        self.groups_known |= meant.group is not None
        if self.cache.holds(meant):
            return None
        if before is not None and not before.problem:
            if before.label != meant.label:
                self._relabelled.add(f"{clip.clip_id} ({before.label} -> {meant.label})")
            if before.video_sha256 != key:
                self._other_video(meant, clip, known=known is not before)
        return meant

    def _keeps(self, name: str, found: HeldClip, meant: HeldClip) -> None:
        """Note what is kept of a clip that was found without it: its group, or columns that are not empty."""
        columns = {column for column, value in meant.extra.items() if value and column not in found.extra}
        if meant.group != found.group or columns:
            self._kept.add(name)
            self._kept_group |= meant.group != found.group
            self._kept_columns |= columns

    def _group_of_a_copy(self, before: HeldClip) -> str | None:
        """Return the group of an entry if it came from a copy that is asked for with it (:meth:`of_one_content`)."""
        return before.group if (before.video_sha256, before.group) in self._groups_given else None

    @cached_property
    def _groups_given(self) -> set[tuple[str, str]]:
        """The contents that the clips asked for had, each with the group that is given now."""
        given = {clip.clip_id: clip.group for clip in self.found.clips if clip.group}
        return {(held.video_sha256, given[held.clip_id]) for held in self.cache.entries() if held.clip_id in given}

    def holds(self, clip: Clip, key: str, problem: str) -> bool:
        """Say whether the cache already has a clip exactly as it was found, so that nothing has to be written."""
        self.groups_known |= clip.group is not None
        return self.cache.holds(_as_found(clip, key, problem))

    def _other_video(self, entry: HeldClip, clip: Clip, *, known: bool) -> None:
        """Note that a clip has a different video than before; ``known`` says whether the cache knew that video."""
        if known:
            self._moved.add(clip.clip_id)
            return
        taken = [entry.group] if entry.group != clip.group else []
        taken += [value for name, value in entry.extra.items() if name not in clip.extra]
        if any(taken):
            self._heirs.add(f"{clip.clip_id} ({', '.join(filter(None, taken))})")
        else:
            self._replaced.add(clip.clip_id)

    def of_one_content(self, asked: Sequence[HeldClip]) -> HeldClip:
        """Return the entry of the clip that is used for one content, completed from the others.

        Args:
            asked: The clips with this content that were asked for; the first is the one to use.
        """
        first = asked[0]
        group, extra = first.group, first.extra
        for clip in sorted(asked, key=lambda clip: clip.since, reverse=True):
            group = group or clip.group
            extra = {**clip.extra, **extra}
        meant = replace(first, group=group, extra=extra)
        if meant != first:
            self._joined.add(first.clip_id)
        return meant

    def notes(self, *, erased: bool) -> list[str]:
        """Return notes on what happened to groups, columns and earlier videos, and on changed classes.

        Args:
            erased: Whether clips that were taken out were erased.
        """
        notes = []
        if n := len(self._failed):
            still = "; nothing was erased for them" if erased else ""
            notes.append(
                f"{plural(n, 'clip')} failed this time, and training still uses what is cached of the earlier video of "
                f"that name{still}: {_named(self._failed)}. To remove such a clip, delete its file, and its rows in "
                "any manifest or list, then run with --prune"
            )
        if n := len(self._kept):
            many = plural(n, "clip keeps its", "clips keep their")
            columns = sorted(self._kept_columns)
            kept = ["group"] * self._kept_group
            kept += [f"column{'s' * (len(columns) > 1)} {listed(columns, 3)}"] * bool(columns)
            notes.append(f"{many} earlier {' and '.join(kept)}: {_named(self._kept)}")
        for names, what in (
            (self._joined, "the group or columns of another clip with the same content"),
            (self._moved, "a video that was cached under another name before"),
            (self._replaced, "new content: it replaces the earlier video of that name"),
            (self._heirs, "new content: it replaces the earlier video of that name and inherits its group or columns"),
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


def _as_found(clip: Clip, key: str, problem: str) -> HeldClip:
    return HeldClip(
        clip_id=clip.clip_id, video_sha256=key, label=clip.label, group=clip.group, extra=clip.extra, problem=problem
    )


def _named(clips: Collection[str]) -> str:
    """Return the first few names, sorted."""
    return some(sorted(clips))
