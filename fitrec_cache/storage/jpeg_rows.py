"""JPEG files of many clips in one array, one after the other: ``jpeg_bytes`` and ``jpeg_end`` of docs/format.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


def joined(clips: Sequence[Sequence[bytes]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the files of some clips, at least one, of T each, as one array, and ``(n, T)``: where each ends in it."""
    sizes = np.array([[len(jpeg) for jpeg in jpegs] for jpegs in clips], dtype=np.int64)
    data = b"".join(jpeg for jpegs in clips for jpeg in jpegs)
    return np.frombuffer(data, dtype=np.uint8), np.cumsum(sizes).reshape(sizes.shape)


def row_of(data: NDArray[Any], ends: NDArray[Any], row: int) -> list[bytes]:
    """Return the files of one clip of those that :func:`joined` put together.

    Raises:
        ValueError: If the ends, of whatever clips, cannot be those of files in ``data``.
    """
    places = np.append(0, ends)  # also where the first file begins
    if not ends.shape[1] or (places[1:] < places[:-1]).any() or places[-1] > len(data):
        raise ValueError("frames have impossible offsets")
    first = row * ends.shape[1]
    return [data[start:end].tobytes() for start, end in pairwise(places[first : first + ends.shape[1] + 1].tolist())]
