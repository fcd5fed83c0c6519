"""Find damage in a cache, set damaged parts aside, and compare stored embeddings with new ones."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fitrec_cache.cache import CLIPS_IDENTITY, Cache, HeldClip
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import (
    TEMPORARY,
    Plain,
    digest,
    is_clutter,
    make_folder,
    may_be_written,
    opened_file,
    parse_json,
    read_file,
    sync_folder,
    write_json,
)
from fitrec_cache.common.progress import progress_bar
from fitrec_cache.dataset.splits import check_seed
from fitrec_cache.errors import NoCacheError, OtherVersionError, StoreCorrupt, StoreError, UsageError
from fitrec_cache.storage.index import INDEX, index_problem
from fitrec_cache.storage.parts import identity_of_part, read_part
from fitrec_cache.storage.root import ASIDE, MARKER, open_root, refuse_links_out, write_marker
from fitrec_cache.storage.sources import lacking


@dataclass(frozen=True, kw_only=True)
class CheckReport(Plain):
    """The result of :func:`check`.

    Attributes:
        parts: Number of committed parts checked.
        rows: Number of rows in sound parts, one per clip and store.
        problems: One ``{path, reason}`` for each faulty file.
        repaired: Number of files set aside or rewritten.
        repairable: Number of files that ``repair`` would set aside or rewrite; 0 after a repair.
        recomputed: Number of embeddings that were recomputed.
        largest_distance: Largest cosine distance between a stored and a recomputed frame embedding; None without
            ``recompute``.
        notes: Notes on anything else worth knowing that is not damage.
    """

    parts: int
    rows: int
    problems: tuple[dict[str, str], ...]
    repaired: int
    repairable: int = 0
    recomputed: int = 0
    largest_distance: float | None = None
    notes: tuple[str, ...] = ()


@plain_arguments
def check(
    *, cache: Path, repair: bool = False, recompute: int = 0, seed: int = 0, progress: bool = False
) -> CheckReport:
    """Verify every file of a cache by its checksum.

    Args:
        cache: Cache folder.
        repair: Move damaged files to ``set-aside`` in the cache, so that ``extract`` redoes exactly their clips.
        recompute: Also recompute the embeddings of this many random clips, for every backbone.
        seed: Seed of the choice of these clips.
        progress: Show a progress bar on standard error.

    Returns:
        The findings; ``problems`` is empty if there are none.

    Raises:
        StoreError: If there is no cache, or it or a part of it has another format version.
        UsageError: If ``recompute`` or ``seed`` is negative, or something to be repaired is a link out of the cache.
    """
    check_seed(seed)
    if recompute < 0:
        raise UsageError(f"recompute is {recompute}: expected 0 or more")
    mended: list[dict[str, str]] = []
    if repair:
        _refuse_links(cache)
        mended = _lost_marker(cache)
    else:
        open_root(cache, create=False)
    found = _scan(cache, progress=progress)
    if mended:
        _mend_marker(cache)
    if repair:
        _repair(cache, found)
    problems, notes = mended + found.problems, found.notes
    repairable = len(mended) + len(found.rewritten) + len(found.damaged)
    repaired = repairable if repair else 0
    done, distance = 0, None
    if repaired == len(problems):  # otherwise the cache may not even open
        opened = Cache(cache)
        entries = opened.entries()
        problems += _missing(opened, entries)
        notes += _nameless(opened, entries)
        if recompute:
            done, distance = _recompute(opened, recompute, seed, notes)
    elif recompute:
        notes.append("nothing was recomputed, as damage remains: --repair first")
    return CheckReport(
        parts=found.parts,
        rows=found.rows,
        problems=tuple(problems),
        repaired=repaired,
        repairable=repairable - repaired,
        recomputed=done,
        largest_distance=distance,
        notes=tuple(notes),
    )


@dataclass(kw_only=True)
class _Scan:
    """What the files of a cache hold: problems, files to set aside, and identities to write anew."""

    parts: int = 0
    rows: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    rewritten: dict[Path, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _refuse_links(cache: Path) -> None:
    """Raise UsageError if something that a repair would move or write is a link out of the cache."""
    folders = [folder for folder, _ in _folders(cache)]
    refuse_links_out(cache, folders, "--repair would move files that are there")
    aside = [cache / ASIDE, *(cache / ASIDE / folder.relative_to(cache) for folder in folders)]
    written = [cache / MARKER, *(folder / "identity.json" for folder in folders), *aside]
    refuse_links_out(cache, written, "--repair would write there")


def _scan(cache: Path, *, progress: bool) -> _Scan:
    """Verify the files of all stores; raise OtherVersionError for a part in another version of the format."""
    found, folders = _Scan(), list(_folders(cache))
    total = sum(len(list(folder.glob("part-*"))) for folder, _ in folders)
    with progress_bar(total=total, unit="part", what="check", show=progress) as bar:
        for folder, kind in folders:
            _scan_folder(folder, kind, found, bar)
    return found


def _scan_folder(folder: Path, kind: str, found: _Scan, bar: Any) -> None:
    """Verify the files of one store."""
    identity, reason = _identity(folder, kind)
    if reason:
        its_file = folder / "identity.json"
        found.problems.append({"path": str(its_file), "reason": reason})
        if identity is not None:
            found.rewritten[its_file] = identity
        elif its_file.exists():
            found.damaged.append(its_file)
    inside = [p for p in folder.iterdir() if p.name not in ("identity.json", "origin.json")]
    for path in sorted(p for p in inside if not is_clutter(p.name)):
        if path.is_dir():
            found.notes.append(f"{path} is a folder, which no part of a cache is: left alone")
            continue
        found.parts += path.name.startswith("part-")
        reason, n = _verify(path, kind, identity)
        bar.update(path.name.startswith("part-"))
        if not os.path.lexists(path):  # erased meanwhile; anything missing is reported later
            continue
        found.rows += n
        if reason:
            found.problems.append({"path": str(path), "reason": reason})
            found.damaged += [path] * _is_readable(path)  # an unreadable file may be sound


def _repair(cache: Path, found: _Scan) -> None:
    """Write identities anew and set damaged files aside."""
    for path, identity in found.rewritten.items():
        write_json(path, identity)
    for path in found.damaged:
        _set_aside(cache, path)
    if any(path.parent.name == "clips" and path.name.startswith("part-") for path in found.damaged):
        found.notes.append(
            "a part with clip entries is lost, so earlier entries apply again: later corrections, such as of "
            "classes and groups, are undone, and clips that --prune removed are back. Run `extract` with all your "
            "videos or your manifest again, and --prune"
        )


def _lost_marker(cache: Path) -> list[dict[str, str]]:
    """Return what is wrong with ``cache.json``, if it is lost or damaged and there are parts, which say the version."""
    try:
        open_root(cache, create=False)
    except (StoreCorrupt, NoCacheError) as error:
        if not any(any(folder.glob("part-*.h5")) for folder, _ in _folders(cache)):
            raise
        reason = "missing" if isinstance(error, NoCacheError) else "damaged: expected a JSON object with format_version"
        return [{"path": str(cache / MARKER), "reason": reason}]
    return []


def _mend_marker(cache: Path) -> None:
    if (cache / MARKER).exists():
        _set_aside(cache, cache / MARKER)
    write_marker(cache)


def _folders(cache: Path) -> Iterator[tuple[Path, str]]:
    if (cache / "clips").is_dir():
        yield cache / "clips", "clips"
    for kind in ("frames", "features"):
        for folder in sorted((cache / kind).glob("*")):
            if folder.is_dir():
                yield folder, kind


def _identity(folder: Path, kind: str) -> tuple[dict[str, Any] | None, str]:
    """Return a folder's identity (from a sound part if its own file is damaged), and what is wrong with that file."""
    reason = ""
    if not (folder / "identity.json").exists() and not any(folder.glob("part-*")):
        return None, ""  # everything was set aside
    expected = digest(CLIPS_IDENTITY)[:16] if kind == "clips" else folder.name.rsplit("-", 1)[-1]
    try:
        identity = parse_json(read_file(folder / "identity.json"))
        if isinstance(identity, dict) and digest(identity)[:16] == expected:
            reason = lacking(kind, identity)
            return None if reason else identity, reason
        reason = "it does not belong to this folder"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except ValueError:
        reason = "it is not JSON"
    for path in sorted(folder.glob("part-*.h5")):
        try:
            identity = identity_of_part(path, kind)
        except StoreError:
            continue
        if digest(identity)[:16] == expected and not lacking(kind, identity):
            return identity, reason
    return None, reason


def _verify(path: Path, kind: str, identity: dict[str, Any] | None) -> tuple[str, int]:
    """Return what is wrong with a file (empty if nothing) and its number of rows."""
    if path.name.startswith(TEMPORARY):
        return ("", 0) if may_be_written(path) else ("half-written: its writer is gone", 0)
    if INDEX.fullmatch(path.name):
        return index_problem(path), 0
    try:
        return "", len(read_part(path, kind, None if identity is None else digest(identity))["key"])
    except StoreCorrupt as error:
        return error.reason or str(error), 0
    except OtherVersionError:  # sound, so not to be set aside
        raise
    except StoreError as error:
        return str(error), 0


def _missing(opened: Cache, entries: Sequence[HeldClip]) -> list[dict[str, str]]:
    """Return what is missing after a part was lost or set aside: finished clips without some of their data.

    This can be told because a clip's entry is written after its frames and features, and features never without frames.
    """
    frames, features = opened.frame_stores(), opened.feature_stores()
    finished = {c.video_sha256: c.clip_id for c in entries if not c.problem}
    no_frames = dict.fromkeys(k for k in finished if not any(k in s for s in frames))
    no_features = dict.fromkeys(k for k in finished if not any(k in s for s in features))
    own_frames: dict[Path, dict[str, None]] = {}
    for store in features:
        own = opened.frame_store(store.identity["frames"])
        without = (k for k in store if k not in own and k in finished and k not in no_frames)  # those are named anyway
        own_frames.setdefault(own.folder, {}).update(dict.fromkeys(without))
    lost = [(opened.folder / "frames", "frames", no_frames), (opened.folder / "features", "features", no_features)]
    lost += [(folder, "frames", keys) for folder, keys in own_frames.items()]
    return [
        {
            "path": str(folder),
            "reason": f"missing: {what} of {len(keys)} finished clips such as {finished[next(iter(keys))]}; "
            "`extract` makes them",
        }
        for folder, what, keys in lost
        if keys
    ]


def _nameless(opened: Cache, entries: Sequence[HeldClip]) -> list[str]:
    """Return a note on frames and features whose content has no entry."""
    named = {c.video_sha256 for c in entries}
    lost = {k for s in (*opened.frame_stores(), *opened.feature_stores()) for k in s} - named
    if not lost:
        return []
    return [
        f"frames or features without a name, of videos: {len(lost)}. Their file has changed since, a run was stopped "
        "before it entered them, or a part of clips is missing; `extract VIDEOS` enters those it finds again"
    ]


def _is_readable(path: Path) -> bool:
    try:
        with opened_file(path):
            return True
    except OSError:
        return False


def _set_aside(cache: Path, path: Path) -> None:
    target = cache / ASIDE / path.relative_to(cache)
    make_folder(target.parent)
    number = 0
    while target.exists():
        number += 1
        target = target.with_name(f"{path.name}.{number}")
    try:
        path.rename(target)
        sync_folder(target.parent)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"cannot move {path} to {target}: {error.strerror}") from error


def _recompute(opened: Cache, count: int, seed: int, notes: list[str]) -> tuple[int, float | None]:
    """Recompute embeddings of random clips from stored frames; return their number and the largest cosine distance.

    Backbones that cannot be loaded, or have changed, are noted.
    """
    from fitrec_cache.extraction.identity import backbone_identity, what_changed
    from fitrec_cache.pipeline import rebuild_backbone
    from fitrec_cache.video.jpeg import decode_frames

    rng = np.random.default_rng(seed)
    done, largest = 0, None
    for store in opened.feature_stores():
        frames = opened.frame_store(store.identity["frames"])
        keys = [k for k in store if k in frames]  # in a fixed order, so that the seed determines the choice
        chosen = rng.choice(len(keys), size=min(count, len(keys)), replace=False).tolist() if keys else []
        if not chosen:
            continue
        command = f"extract --cache {shlex.quote(str(opened.folder))}"
        try:
            backbone = rebuild_backbone(store.identity, store.origin(), command=command)
        except UsageError as error:
            notes.append(f"{store.folder.name} was not recomputed: {error}")
            continue
        if changed := what_changed(backbone_identity(store.identity), backbone.identity()):
            notes.append(f"{store.folder.name} was not recomputed, as weights or versions differ: {changed}")
            continue
        here, there = backbone.origin()["device"], store.origin().get("device")
        if here != there:
            notes.append(f"{store.folder.name} was made on {there}, recomputed on {here}: last bits may differ")
        for key in (keys[i] for i in chosen):
            distance = _distance(store.row(key)["features"], backbone.embed(decode_frames(frames.jpegs(key))))
            largest = distance if largest is None else max(largest, distance)
            done += 1
    return done, largest


def _distance(a: Any, b: Any) -> float:
    """Return the largest cosine distance between rows of two ``(T, d)`` arrays; two zero rows are equal."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if np.array_equal(x, y):
        return 0.0
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(np.max(1 - np.sum(x * y, axis=1) / np.maximum(norms, 1e-12)))
