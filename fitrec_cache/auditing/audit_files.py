"""The output files of an audit: the pairs as a table and a picture, and the proposed groups as a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.auditing.near_duplicates import NearDuplicates
from fitrec_cache.cache import Cache, HeldClip
from fitrec_cache.common.files import make_folder, refuse_others, remove, remove_unfinished, write_csv
from fitrec_cache.errors import UsageError
from fitrec_cache.storage.store import Store
from fitrec_cache.video.jpeg import decode_pictures

PICTURED = 12
"""Number of pairs in the picture, the most similar ones."""

_HEADER = ("similarity", *(f"{what}_{name}" for name in "ab" for what in ("clip", "label", "group", "side")))


def describe_pair(found: NearDuplicates, k: int, clips: Sequence[HeldClip], side: Sequence[str]) -> dict[str, Any]:
    """Return pair number ``k`` as plain values: the similarity, and clip id, label, group and side of both clips."""
    described: dict[str, Any] = {"similarity": float(found.similarity[k])}
    for name, i in zip("ab", found.pairs[k].tolist(), strict=True):
        clip = clips[i]
        described |= {f"clip_{name}": clip.clip_id, f"label_{name}": clip.label}
        described |= {f"group_{name}": clip.group or "", f"side_{name}": side[i]}
    return described


def write_findings(
    out: Path,
    cache: Cache,
    found: NearDuplicates,
    clips: Sequence[HeldClip],
    side: Sequence[str],
    across: NDArray[np.int64],
) -> list[str]:
    """Write ``pairs.csv`` with every pair, and ``pairs.png`` with the most similar pairs between training and test.

    Args:
        out: Output folder; created if it does not exist.
        cache: The cache with the frames.
        found: The pairs.
        clips: The N clips.
        side: Side of each clip, or empty.
        across: Numbers of the pairs between training and test.

    Returns:
        The files of the audit: these and ``audit.json``, which the caller writes. There is no picture if the cache
        lacks frames of a clip, or no pair is between training and test.
    """
    make_folder(out)
    remove_unfinished(out)
    picture = out / "pairs.png"
    for earlier in (out / "audit.json", picture):  # files of an earlier audit must not stay beside the new pairs
        remove(earlier)
    rows = (describe_pair(found, k, clips, side) for k in range(len(found.pairs)))
    write_csv(out / "pairs.csv", _HEADER, (row | {"similarity": f"{row['similarity']:.4f}"} for row in rows))
    files = [str(out / "audit.json"), str(out / "pairs.csv")]
    shown = across[:PICTURED].tolist()
    keys = {clips[i].video_sha256 for k in shown for i in found.pairs[k].tolist()}
    store = next((s for s in cache.frame_stores() if all(key in s for key in keys)), None)
    if shown and store is not None:
        _draw(store, found, shown, clips, side, picture, n_across=len(across))
        files.append(str(picture))
    return files


def refuse_foreign(out: Path) -> None:
    """Raise UsageError if ``out`` is a file, or holds a file that an audit would replace and that is not from one."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: expected a folder")
    refuse_others(out / "audit.json", "--out", '"split"', "an audit's")
    refuse_others(out / "pairs.csv", "--out", ",".join(_HEADER), "an audit's")
    picture = out / "pairs.png"
    if picture.exists() and not (out / "pairs.csv").exists():  # an audit writes pairs.csv first
        raise UsageError(f"--out {picture} exists and is not an audit's: choose another name")


def write_manifest(path: Path, clips: Sequence[HeldClip], cluster: NDArray[np.int64], *, known: Iterable[str]) -> None:
    """Write the clips with their proposed groups; further columns of their original manifest are kept.

    A cluster keeps the name of its first clip that has a group; the others are named ``recording-00001`` and so on.

    Args:
        path: CSV file to write.
        clips: The N clips.
        cluster: Cluster number of each clip.
        known: Groups of these and of all other clips: names that are already in use.
    """
    names: dict[int, str] = {}
    for clip, number in zip(clips, cluster.tolist(), strict=True):
        if clip.group is not None:
            names.setdefault(number, clip.group)
    taken = set(known)
    fresh = (name for i in count(1) if (name := f"recording-{i:05d}") not in taken)
    for number in dict.fromkeys(cluster.tolist()):
        if number not in names:
            names[number] = next(fresh)
    extra = list(dict.fromkeys(name for c in clips for name in c.extra))
    rows = (
        {**{name: c.extra.get(name, "") for name in extra}, "path": c.clip_id, "label": c.label, "group": names[k]}
        for c, k in zip(clips, cluster.tolist(), strict=True)
    )
    make_folder(path.parent)
    remove_unfinished(path.parent)
    write_csv(path, ("path", "label", "group", *extra), rows)


def _draw(
    store: Store,
    found: NearDuplicates,
    shown: Sequence[int],
    clips: Sequence[HeldClip],
    side: Sequence[str],
    path: Path,
    *,
    n_across: int,
) -> None:
    from fitrec_cache.auditing.pair_picture import PicturedClip, pairs_png  # matplotlib is slow to load

    def pictured(i: int) -> PicturedClip:
        clip = clips[i]
        group = f"group {clip.group}" if clip.group else "group unknown"
        frames = decode_pictures(store.jpegs(clip.video_sha256))  # (T, h, w, 3)
        ends_and_middle = frames[[0, len(frames) // 2, len(frames) - 1]]
        return PicturedClip(
            title=clip.clip_id, caption=f"{clip.label}, {group}, {side[i]}".rstrip(", "), frames=ends_and_middle
        )

    title = f"{n_across} near-duplicate pairs between training (or validation) and test"
    if n_across > len(shown):
        title += f", the most alike {len(shown)}"
    drawn = []
    for k in shown:
        first, second = sorted(found.pairs[k].tolist(), key=lambda i: side[i] == "test")  # the test clip on the right
        drawn.append((pictured(first), pictured(second), float(found.similarity[k])))
    pairs_png(drawn, path, title=title)
