"""Erase clips that were taken out from disk. Parts never change: new parts without these rows replace them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, newest
from fitrec_cache.common.files import TEMPORARY, may_be_there, may_be_written, remove
from fitrec_cache.dataset.find_clips import ClipList
from fitrec_cache.errors import StoreCorrupt, StoreError, UsageError
from fitrec_cache.extraction.claims import others_at_work
from fitrec_cache.storage.parts import Arrays, joined, read_part, row_of, text_values
from fitrec_cache.storage.root import ASIDE, refuse_links_out
from fitrec_cache.storage.store import Store
from fitrec_cache.video.contents import content_of
from fitrec_cache.wording import plural, size, some


def erase_taken_out(folder: Path) -> list[str]:
    """Remove from disk what a cache stores for clips that were taken out, and for contents that no clip has any more.

    Removed are rows of frames and features whose content no remaining clip has (a clip that failed counts as
    remaining), and all entries of clips except the latest of each clip that is not
    :data:`fitrec_cache.cache.TAKEN_OUT`: earlier entries may name other people. A part with such rows is removed only
    after its remaining rows are on disk in a new part, so a kill loses nothing, and the next call finishes the work.
    One part at a time is in memory.

    Args:
        folder: The cache folder. A cache that is open must be opened again afterwards.

    Returns:
        Notes on what was erased, and on where more of it may be; empty if there is neither.

    Raises:
        UsageError: If another extract works on the cache, or one of its folders is a link out of it; nothing is erased.
        StoreCorrupt: If a part with such rows is damaged; what was erased before stays erased, the rest is unchanged.
        StoreError: If a file cannot be written or removed; likewise.
    """
    opened = Cache(folder)
    stores = opened.stores()
    refuse_links(opened)
    _refuse_unnamed(folder, stores)
    # List parts before reading entries: another process writes a clip's entry after its frames, and until then its
    # claim is visible.
    listed = [(store, store.part_paths()) for store in stores]
    refuse_beside_others(folder)
    latest = Cache(folder)
    entries = latest.entries()
    held = [clip for clip in entries if clip.problem != TAKEN_OUT]
    taken_out = [clip for clip in entries if clip.problem == TAKEN_OUT]
    contents = {clip.video_sha256 for clip in held if clip.video_sha256}  # empty for an unreadable file
    rows = (row for _, columns in latest.clip_store.texts() for row in latest.clip_store.rows_of(columns))
    entered = {row for row in rows if row[-1] != TAKEN_OUT.encode()}
    stored = {(content.encode(),) for content in contents}
    freed, erased = 0, set[str]()
    try:
        for store, parts in listed:  # the store of entries comes last: they determine what is to be erased
            less, keys = _erase(store, parts, entered if store.kind == "clips" else stored)
            freed += less
            erased |= keys
    except StoreError as error:
        raise type(error)(f"erasing stopped halfway; run the same command again to finish: {error}") from error
    for path in folder.glob("unfinished-*.json"):  # hints, which contain names
        remove(path)
    left = _remove_half_written([folder, *(store.folder for store in stores)])
    if taken_out or erased or freed:
        for store in Cache(folder).stores():
            store.write_index(at_end=True)
    return [*_told(taken_out, contents, erased, freed), *_elsewhere(folder, left)]


def refuse_beside_others(folder: Path) -> None:
    """Raise UsageError if another extract works on a cache, because it may be using what would be erased."""
    if others_at_work(folder):
        raise UsageError(
            f"another extract works on {folder} and may be using what --erase removes: nothing was erased. Run the "
            "same command again when it has ended (one that was killed on another machine counts for ten minutes)"
        )


def refuse_most(cache: Cache, names: Collection[str]) -> None:
    """Raise UsageError if most contents of a cache have none of these names: erasing by mistake cannot be undone.

    Clips that were taken out before do not count, because their names were reported then. Earlier names of contents
    that stay do not count either. Files renamed since the last extract do count, because their content is not known
    yet.
    """
    clips = [clip for clip in cache.entries() if not clip.problem]
    used, here = newest(clips), {clip.video_sha256 for clip in clips if clip.clip_id in names}
    gone = sorted(clip.clip_id for content, clip in used.items() if content not in here)
    if 2 * len(gone) > len(used):
        raise UsageError(
            f"--erase would remove {len(gone)} of {len(used)} clips (compared by name), and for good what no other "
            f"clip shares with them: {some(gone)}. Nothing was done. If you intend this, or if files were renamed, run "
            "the same command with --prune alone first, then with both"
        )


def refuse_links(cache: Cache) -> None:
    """Raise UsageError if a folder of a cache is a link out of it: rows unknown to this cache would be erased there."""
    refuse_links_out(cache.folder, (store.folder for store in cache.stores()), "--erase would remove what is there")


def _refuse_unnamed(folder: Path, stores: Sequence[Store]) -> None:
    """Raise StoreCorrupt if a folder of parts belongs to none of the stores, because its frames would not be erased."""
    known = {store.folder for store in stores}
    for path in (*folder.glob("frames/*/part-*.h5"), *folder.glob("features/*/part-*.h5")):
        if path.parent not in known:
            raise StoreCorrupt(
                f"{path.parent} has parts and no identity.json: nothing was erased. Run `fitrec-cache check --cache "
                "DIR --repair`, which writes it again from a part, then the same command"
            )


def _erase(store: Store, parts: Sequence[Path], kept: Collection[tuple[bytes, ...]]) -> tuple[int, set[str]]:
    """Remove all rows except those in ``kept``.

    The earliest parts come first. The entry that takes a clip out is therefore removed last, so that no earlier entry
    of the clip becomes valid in the meantime.

    Returns:
        The number of bytes freed, and the contents removed (for stores of frames and features).
    """
    is_clips = store.kind == "clips"
    for index, rows in store.indexes():  # indexes can be rebuilt from the parts
        if not rows or not rows.issubset(kept):
            remove(index)
    freed, erased = 0, set[str]()
    for part in parts:
        if not is_clips and all((key,) in kept for key in store.keys_in(part)):
            continue
        arrays = read_part(part, store.kind)
        stays = [row in kept for row in store.rows_of(arrays)]
        if all(stays):
            continue
        before = part.stat().st_size
        new = store.replace_part(part, _of_rows(part, arrays, np.flatnonzero(stays)))
        freed += before - (new.stat().st_size if new else 0)
        erased.update(() if is_clips else text_values(arrays["key"][~np.array(stays)]))
    return freed, erased


def _of_rows(part: Path, arrays: Arrays, rows: NDArray[np.int64]) -> Arrays:
    """Return the selected rows of a part."""
    chosen = {name: array[rows] for name, array in arrays.items() if name != "jpeg_bytes"}
    if "jpeg_bytes" in arrays and len(rows):
        data, ends = arrays["jpeg_bytes"], arrays["jpeg_end"]
        try:
            chosen["jpeg_bytes"], chosen["jpeg_end"] = joined([row_of(data, ends, row) for row in rows.tolist()])
        except ValueError as error:
            raise StoreCorrupt(f"{part}: {error}. Move it away: `extract` makes its clips again") from error
    return chosen


def _remove_half_written(folders: Sequence[Path]) -> list[Path]:
    """Remove unfinished files of dead writers, never reported as done; return those that may still have a writer."""
    left = []
    for path in [path for folder in folders for path in sorted(folder.glob(f"{TEMPORARY}*")) if path.is_file()]:
        if may_be_written(path):
            left.append(path)
        else:
            remove(path)
    return left


def _told(taken_out: Sequence[HeldClip], contents: Collection[str], erased: Collection[str], freed: int) -> list[str]:
    """Return notes on what was erased: clips, earlier names of remaining clips, and contents without a name."""
    gone = {clip.video_sha256 for clip in taken_out}.difference(contents)
    clips = sum(clip.video_sha256 in gone for clip in taken_out)
    counts = [(clips, "clip"), (len(taken_out) - clips, "earlier name"), (len(set(erased) - gone), "earlier content")]
    what = [plural(n, thing) for n, thing in counts if n] or ["earlier entries of clips"] * bool(freed)
    if not what:
        return []
    return [
        f"erased from disk: {', '.join(what)}, {size(freed)} freed",
        "heads, reports, audits, exports and manifests made of these before still hold their names, or what was "
        "learned from them: remove those folders too, and train again",
    ]


def _elsewhere(folder: Path, left: Sequence[Path]) -> list[str]:
    """Return notes on places that are not searched but may hold more of the erased clips."""
    notes = []
    if any(path.is_file() for path in (folder / ASIDE).rglob("*")):
        notes.append(f"{folder / ASIDE} holds damaged files that may show erased clips: delete it yourself")
    if left:
        notes.append(
            f"{plural(len(left), 'half-written file')} may still have a writer and hold erased clips: "
            f"{some([str(path) for path in left])}. Run the same command again tomorrow"
        )
    return notes


def names_of_all(found: ClipList) -> set[str]:
    """Return the names of all clips that exist, whether or not they are asked for."""
    return {clip.clip_id for clip in (*found.clips, *found.passed_over)}


def refuse_renamed(cache: Cache, found: ClipList, unread: Sequence[str]) -> None:
    """Raise UsageError if something to be erased is, or may be, a file that exists under another name.

    Args:
        cache: The cache, after the extraction: only then the content of each file is known.
        found: The clips asked for, and those that exist but were not asked for.
        unread: Clips whose files may exist but could not be read.
    """
    if not unread and not found.passed_over:
        return
    names = names_of_all(found)
    stay = {clip.video_sha256 for clip in cache.entries() if clip.clip_id in names and clip.problem != TAKEN_OUT}
    gone = {key for store in (*cache.frame_stores(), *cache.feature_stores()) for key in store} - stay
    if not gone:
        return
    if unread:
        raise UsageError(
            f"{unread[0]} cannot be read, so it may be a video that --erase would remove, under another name. Nothing "
            "was removed or erased. Make it readable, or delete it if nothing of it is to be kept"
        )
    for clip in found.passed_over:
        if clip.path is None or not may_be_there(clip.path):
            continue
        content = content_of(clip.path, clip.span)
        if content in gone:
            why = "is a video that --erase would remove"
        elif not content:
            why = "cannot be read, so it may be a video that --erase would remove"
        else:
            continue
        raise UsageError(
            f"--classes or --list leave out {clip.clip_id}, which {why}. Nothing was removed or erased. Extract it "
            "first, or move it out of VIDEOS"
        )
