"""The small frames on which LRCN and ConvLSTM are trained."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fitrec_cache.cache import Cache, pick_frames
from fitrec_cache.common.progress import progress_bar
from fitrec_cache.features import Features, by_part, clips_in
from fitrec_cache.settings.paper import FRAME_SIDE
from fitrec_cache.settings.variants import PIXELS
from fitrec_cache.video.jpeg import decode_frames
from fitrec_cache.video.resizing import resize


def to_pixels(frames: Tensor) -> NDArray[np.uint8]:
    """Reduce the frames of a clip, uint8 ``(T, 3, H, W)``, to uint8 ``(T, 64, 64, 3)``."""
    small = resize(frames, (FRAME_SIDE, FRAME_SIDE), "bilinear")
    pixels: NDArray[np.uint8] = small.permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def load_pixels(cache: Cache, *, progress: bool = False) -> Features:
    """Load all clips of a cache as frames of 64x64 pixels, from the frame store.

    Returns:
        Values uint8 ``(N, T, 64, 64, 3)``: 246 kB per clip at T = 20.

    Raises:
        UsageError: If the cache holds no frames.
        StoreError: If no clip has any of these frames, or they are damaged.
    """
    store, several = pick_frames(cache)
    clips, notes = clips_in(cache, [store], "frames of these settings")
    keys, order = by_part(store, clips)
    samples = int(store.identity["samples"])
    values = np.empty((len(keys), samples, FRAME_SIDE, FRAME_SIDE, 3), dtype=np.uint8)
    times = np.empty((len(keys), samples), dtype=np.float64)
    with progress_bar(total=len(keys), unit="clip", what="frames", show=progress, after=1) as bar:
        for i, key in enumerate(keys):
            values[i] = to_pixels(decode_frames(store.jpegs(key)))
            times[i] = store.row(key)["pts_seconds"]
            bar.update()
    if order != list(range(len(keys))):
        values, times = values[order], times[order]
    return Features.of_clips(
        clips,
        values=values,
        pts_seconds=times,
        sources=[{"kind": "pixels", "identity": store.identity, "origin": {}}],
        name=PIXELS,
        notes=notes + several,
    )
