"""Frames and charts as data URIs, so that the page loads nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fitrec_cache.cache import Cache, HeldClip
from fitrec_cache.common.files import parse_json
from fitrec_cache.errors import StoreError
from fitrec_cache.report.records import Record
from fitrec_cache.storage.sources import frames_of
from fitrec_cache.storage.store import Store
from fitrec_cache.video.jpeg import thumbnail

#: The number of frames in a glimpse of a clip, and their width in pixels.
_GLIMPSE, _GLIMPSE_WIDTH = 4, 168


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A frame to show: its bytes as a data URI, its size in pixels and its time in seconds."""

    uri: str
    width: int
    height: int
    pts_seconds: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """An SVG as a data URI, and a description of it in words."""

    uri: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """A few frames of one clip."""

    clip_id: str
    frames: tuple[Picture, ...]


class Frames:
    """The stored frames that a run was trained on.

    Args:
        cache: The cache, opened.
        clips: Its clips, by their ids.
        record: The run; its ``sources`` identify the frame store.

    Raises:
        StoreError: If the cache holds no such frames.
    """

    def __init__(self, cache: Cache, clips: Mapping[str, HeldClip], record: Record) -> None:
        self._store, self._clips = _frame_store(cache, record), clips
        self.lost: set[str] = set()

    def glimpse(self, clip_id: str) -> Glimpse | None:
        """Return a few frames spread over a clip; None if there are none."""
        steps = int(self._store.identity["samples"])
        spread = np.linspace(0, steps - 1, _GLIMPSE + 2).round().astype(int)[1:-1]
        pictures = self.strip(clip_id, sorted({int(i) for i in spread}), width=_GLIMPSE_WIDTH)
        return Glimpse(clip_id=clip_id, frames=tuple(pictures)) if pictures else None

    def of_class(self, label: str, among: Sequence[str]) -> str:
        """Return the first of these clips that has this class and stored frames; empty if there is none."""
        clips = (self._clips[clip_id] for clip_id in among if clip_id in self._clips)
        return next((c.clip_id for c in clips if c.label == label and c.video_sha256 in self._store), "")

    def strip(self, clip_id: str, frames: Sequence[int], *, width: int) -> list[Picture]:
        """Return selected frames of a clip; empty if the cache does not hold them or they are damaged.

        Args:
            clip_id: The clip.
            frames: Numbers among the T sampled frames, in ``[0, T)``.
            width: Largest width in pixels.
        """
        clip = self._clips.get(clip_id)
        if clip is None or clip.video_sha256 not in self._store:
            self.lost.add(clip_id)
            return []
        try:
            encoded = self._store.jpegs(clip.video_sha256)
            row = self._store.row(clip.video_sha256)
            times = row["pts_seconds"] - parse_json(bytes(row["ledger"])).get("starts_at_seconds", 0.0)  # as in players
            wanted = (i for i in frames if i < len(encoded))
            return [_picture(encoded[i], float(times[i]), width) for i in wanted]
        except StoreError:
            self.lost.add(clip_id)
            return []


def _picture(data: bytes, seconds: float, width: int) -> Picture:
    small, w, h = thumbnail(data, width=width)
    return Picture(uri=data_uri(small, "image/jpeg"), width=w, height=h, pts_seconds=seconds)


def _frame_store(cache: Cache, record: Record) -> Store:
    if not record.sources:
        raise StoreError(f"{record.folder.name} was trained on features made elsewhere")
    source = record.sources[0]
    store = cache.frame_store(frames_of(source))
    if not len(store):
        raise StoreError(f"{cache.folder} does not hold the frames that {record.folder.name} was trained on")
    return store


def data_uri(data: bytes | str, kind: str) -> str:
    """Return data as a ``data:`` URI."""
    raw = data.encode() if isinstance(data, str) else data
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"
