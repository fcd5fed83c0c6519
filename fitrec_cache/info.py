"""Describe the content of a cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitrec_cache.cache import TAKEN_OUT, Cache, HeldClip, newest
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import Plain, parse_json
from fitrec_cache.errors import UsageError
from fitrec_cache.extraction.history import Extraction, history
from fitrec_cache.storage.parts import FORMAT_VERSION, text_values
from fitrec_cache.storage.store import Store
from fitrec_cache.wording import command


@dataclass(frozen=True, kw_only=True)
class InfoReport(Plain):
    """The content of a cache: clips, classes, all sets of frames and features with settings and size, its history."""

    cache: Path
    format_version: int
    clips: int
    failed: int
    taken_out: int
    classes: dict[str, int]
    groups: int
    frames: tuple[dict[str, Any], ...]
    features: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()
    history: tuple[Extraction, ...] = ()
    clip_list: tuple[dict[str, Any], ...] = ()


@plain_arguments
def info(*, cache: Path, clips: bool = False) -> InfoReport:
    """Describe a cache.

    Args:
        cache: Cache folder.
        clips: Also list every clip, with what was found while decoding it.

    Returns:
        The description.

    Raises:
        StoreError: If there is no cache, or it cannot be read.
        UsageError: If ``clips`` is set and there are none.
    """
    opened = Cache(cache)
    held = opened.clips()
    counting = newest(held)
    usable, good = sum(not c.problem for c in held), list(counting.values())
    taken_out = [c for c in held if c.problem == TAKEN_OUT]  # some are earlier names of clips that are used
    if clips and not held:
        raise UsageError(f"{cache} holds no clips yet: run `{command('extract', 'VIDEOS', cache=cache)}`")
    frame_stores = opened.frame_stores()
    return InfoReport(
        cache=cache,
        format_version=FORMAT_VERSION,
        clips=len(good),
        failed=len(held) - usable - len(taken_out),
        taken_out=sum(c.video_sha256 not in counting for c in taken_out),
        classes=dict(sorted(Counter(c.label for c in good).items())),
        groups=len({c.group for c in good if c.group}),
        frames=tuple(_describe(s) for s in frame_stores),
        features=tuple(_describe(s) for s in opened.feature_stores()),
        notes=tuple(opened.notes(held)),
        history=tuple(history(opened.folder)),
        clip_list=tuple(_clip_rows(held, frame_stores)) if clips else (),
    )


def _describe(store: Store) -> dict[str, Any]:
    parts = store.part_paths()
    settings = {k: v for k, v in store.identity.items() if k not in ("format_version", "frames")}
    if "frames" in store.identity:  # features: two sets may differ only in their number of frames
        settings["samples"] = store.identity["frames"]["samples"]
    size = sum(p.stat().st_size for p in parts)
    return {"folder": store.folder.name, "clips": len(store), "parts": len(parts), "bytes": size, "settings": settings}


def _clip_rows(held: list[HeldClip], stores: list[Store]) -> list[dict[str, Any]]:
    ledgers: dict[str, Any] = {}
    for store in stores:
        if len(store):
            keys = list(store)
            column = store.rows(keys, ("ledger",))["ledger"]
            ledgers |= dict(zip(keys, map(parse_json, text_values(column)), strict=True))
    return [
        {
            "clip_id": c.clip_id,
            "label": c.label,
            "group": c.group,
            "video_sha256": c.video_sha256,
            "problem": c.problem,
            "ledger": ledgers.get(c.video_sha256, {}),
        }
        for c in held
    ]
