"""The JPEG frames of many clips in one array: ``jpeg_bytes`` and ``jpeg_end`` of docs/format.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


def joined(clips: Sequence[Sequence[bytes]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Concatenate the JPEG files of several clips, at least one clip, each with T files.

    Returns:
        All bytes as one array, and the end of each file in it, ``(n, T)``.
    """
    sizes = np.array([[len(jpeg) for jpeg in jpegs] for jpegs in clips], dtype=np.int64)
    data = b"".join(jpeg for jpegs in clips for jpeg in jpegs)
    return np.frombuffer(data, dtype=np.uint8), np.cumsum(sizes).reshape(sizes.shape)


def row_of(data: NDArray[Any], ends: NDArray[Any], row: int) -> list[bytes]:
    """Return the JPEG files of one clip from the arrays made by :func:`joined`.

    Raises:
        ValueError: If the ends, of any clip, cannot be those of files in ``data``.
    """
    places = np.append(0, ends)  # with the start of the first file
    if not ends.shape[1] or (places[1:] < places[:-1]).any() or places[-1] > len(data):
        raise ValueError("frames have impossible offsets")
    first = row * ends.shape[1]
    return [data[start:end].tobytes() for start, end in pairwise(places[first : first + ends.shape[1] + 1].tolist())]
