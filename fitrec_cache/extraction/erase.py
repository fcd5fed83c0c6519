"""Clips that are taken out, off the disk. Parts never change: others, without these rows, take their places."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, newest
from fitrec_cache.common.files import TEMPORARY, may_be_written, remove
from fitrec_cache.errors import StoreCorrupt, StoreError, UsageError
from fitrec_cache.extraction.claims import others_at_work
from fitrec_cache.storage.jpeg_rows import joined, row_of
from fitrec_cache.storage.parts import Arrays, read_part
from fitrec_cache.storage.root import ASIDE, refuse_links_out
from fitrec_cache.storage.store import Store
from fitrec_cache.wording import plural, size, some


def erase_taken_out(folder: Path) -> list[str]:
    """Remove from disk what a cache stores of clips that are taken out, and of contents that no clip has any more.

    What goes are rows of frames and features whose content no held clip has, failed ones too, and all entries of clips
    but the latest of each that is not :data:`fitrec_cache.cache.TAKEN_OUT`: earlier ones may name other people. A part
    with such rows is removed once one of its other rows is on disk: a kill loses nothing, and the next call goes on.
    One part is in memory at a time.

    Args:
        folder: The cache folder. Whoever has the cache open must open it again.

    Returns:
        Notes: what was erased, and where more of it may lie; none where there is neither.

    Raises:
        UsageError: If another extract works on the cache, or a folder of it is a link out of it; nothing is erased.
        StoreCorrupt: If a part with such rows is damaged; what was erased by then is gone, all else stays.
        StoreError: If a file cannot be written or removed; likewise.
    """
    opened = Cache(folder)
    stores = opened.stores()
    refuse_links(opened)
    _refuse_unnamed(folder, stores)
    # Listed before the entries are read: another process enters a clip after its frames, and its claim tells till then.
    listed = [(store, store.part_paths()) for store in stores]
    refuse_beside_others(folder)
    latest = Cache(folder)
    entries = latest.entries()
    held = [clip for clip in entries if clip.problem != TAKEN_OUT]
    taken_out = [clip for clip in entries if clip.problem == TAKEN_OUT]
    contents = {clip.video_sha256.encode() for clip in held if clip.video_sha256}  # a file that failed may have none
    entered = {row for row in latest.rows() if row[-1] != TAKEN_OUT.encode()}
    stored = {(content,) for content in contents}
    freed, erased = 0, set[bytes]()
    try:
        for store, parts in listed:  # the entries last: until then they tell what is to be erased
            less, keys = _erase(store, parts, entered if store.kind == "clips" else stored)
            freed += less
            erased |= keys
    except StoreError as error:
        raise type(error)(f"erasing stopped halfway; run the same command again to finish: {error}") from error
    for path in folder.glob("unfinished-*.json"):  # hints that hold names
        remove(path)
    left = _remove_half_written([folder, *(store.folder for store in stores)])
    if taken_out or erased or freed:
        for store in Cache(folder).stores():
            store.write_index(at_end=True)
    return [*_told(taken_out, contents, erased, freed), *_elsewhere(folder, left)]


def refuse_beside_others(folder: Path) -> None:
    """Raise UsageError if another extract works on a cache: it may be using what would be erased."""
    if others_at_work(folder):
        raise UsageError(
            f"another extract works on {folder} and may be using what --erase removes: nothing was erased. Run the "
            "same command again when it has ended (one that was killed on another machine counts for ten minutes)"
        )


def refuse_most(cache: Cache, names: Collection[str]) -> None:
    """Raise UsageError if most contents of a cache have none of these names: erasing the wrong ones is for good.

    Clips that were taken out before do not count: whoever did that has seen their names. Earlier names of contents that
    stay do not count either. What has been renamed since the last extract does, as its content is not known yet.
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


def going(cache: Cache, names: Collection[str]) -> set[str]:
    """Return the contents that are stored and that no clip of these names has, so that they would be erased."""
    stay = {c.video_sha256 for c in cache.entries() if c.clip_id in names and c.problem != TAKEN_OUT}
    return {key for store in (*cache.frame_stores(), *cache.feature_stores()) for key in store} - stay


def refuse_links(cache: Cache) -> None:
    """Raise UsageError if a folder of a cache is a link out of it: rows there, which it does not know, would go."""
    refuse_links_out(cache.folder, (store.folder for store in cache.stores()), "--erase would remove what is there")


def _refuse_unnamed(folder: Path, stores: Sequence[Store]) -> None:
    """Refuse a folder of parts that is none of the stores, as its frames would stay."""
    known = {store.folder for store in stores}
    for path in (*folder.glob("frames/*/part-*.h5"), *folder.glob("features/*/part-*.h5")):
        if path.parent not in known:
            raise StoreCorrupt(
                f"{path.parent} has parts and no identity.json: nothing was erased. Run `fitrec-cache check --cache "
                "DIR --repair`, which writes it again from a part, then the same command"
            )


def _erase(store: Store, parts: Sequence[Path], kept: Collection[tuple[bytes, ...]]) -> tuple[int, set[bytes]]:
    """Remove all rows but those that are kept; return bytes freed, and of frames and features the contents removed.

    The earliest parts come first: of a clip the entry that takes it out comes last, so that whatever is left meanwhile
    no earlier one counts again.
    """
    is_clips = store.kind == "clips"
    for index, rows in store.indexes():  # they are rebuilt from the parts
        if not rows or not rows.issubset(kept):
            remove(index)
    freed, erased = 0, set[bytes]()
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
        erased.update(() if is_clips else arrays["key"][~np.array(stays)].tolist())
    return freed, erased


def _of_rows(part: Path, arrays: Arrays, rows: NDArray[np.int64]) -> Arrays:
    """Return some rows of a part."""
    chosen = {name: array[rows] for name, array in arrays.items() if name != "jpeg_bytes"}
    if "jpeg_bytes" in arrays and len(rows):
        data, ends = arrays["jpeg_bytes"], arrays["jpeg_end"]
        try:
            chosen["jpeg_bytes"], chosen["jpeg_end"] = joined([row_of(data, ends, row) for row in rows.tolist()])
        except ValueError as error:
            raise StoreCorrupt(f"{part}: {error}. Move it away: `extract` makes its clips again") from error
    return chosen


def _remove_half_written(folders: Sequence[Path]) -> list[Path]:
    """Remove what dead writers left, of which nothing was reported done; return what may still have a writer."""
    left = []
    for path in [path for folder in folders for path in sorted(folder.glob(f"{TEMPORARY}*")) if path.is_file()]:
        if may_be_written(path):
            left.append(path)
        else:
            remove(path)
    return left


def _told(
    taken_out: Sequence[HeldClip], contents: Collection[bytes], erased: Collection[bytes], freed: int
) -> list[str]:
    """Say what was erased: clips, names that held clips had before, and contents of which there was no name left."""
    gone = {clip.video_sha256.encode() for clip in taken_out}.difference(contents)
    clips = sum(clip.video_sha256.encode() in gone for clip in taken_out)
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
    """Say where more may lie that is not looked into."""
    notes = []
    if any(path.is_file() for path in (folder / ASIDE).rglob("*")):
        notes.append(f"{folder / ASIDE} holds damaged files that may show erased clips: delete it yourself")
    if left:
        notes.append(
            f"{plural(len(left), 'half-written file')} may still have a writer and hold erased clips: "
            f"{some([str(path) for path in left])}. Run the same command again tomorrow"
        )
    return notes
