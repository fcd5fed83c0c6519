"""A map from keys to their positions that takes 24 bytes per key; a dict of strings takes some 200."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: New keys are collected in a dict. They are merged into the sorted array when there are more than ``_FEWEST`` of them
#: and more than one for every ``_SHARE`` sorted keys.
_FEWEST, _SHARE = 1024, 16

#: The number of a part, and the row in it.
Place = tuple[int, int]

#: A 128-bit digest as two halves.
_Digest = tuple[int, int]


class KeyMap:
    """A map from keys to places that stores a digest of each key instead of the key.

    A digest has 128 bits: among a thousand million keys no two are expected to have the same digest. One thread may
    look up places while another adds keys.
    """

    def __init__(self) -> None:
        self._new: dict[_Digest, Place] = {}
        self._sorted = _Sorted(np.empty((0, 2), dtype=np.uint64), np.empty((0, 2), dtype=np.int32))

    def __len__(self) -> int:
        return len(self._sorted.places) + len(self._new)

    def find(self, key: bytes) -> Place | None:
        """Return the place of a key, or None if it is not in the map."""
        digest = _digest(key)
        if (place := self._new.get(digest)) is not None:
            return place
        if (row := self._sorted.row(digest)) is None:
            return None
        part, number = row.tolist()  # read both at once: another thread may be changing them
        return part, number

    def put(self, key: bytes, place: Place) -> None:
        """Set the place of a key; it replaces an earlier one."""
        digest = _digest(key)
        if (row := self._sorted.row(digest)) is not None:
            row[:] = place
            return
        self._new[digest] = place
        if len(self._new) > max(_FEWEST, len(self._sorted.places) // _SHARE):
            self._sorted = self._sorted.and_also(self._new)
            self._new = {}  # only now, so that another thread always finds a key in one of the two

    def places(self) -> NDArray[np.int32]:
        """Return all places, ``(n, 2)``, sorted by part and row."""
        found = np.concatenate([self._sorted.places, _pairs(self._new.values(), np.int32)])
        return found[np.lexsort((found[:, 1], found[:, 0]))]


class _Sorted:
    """Digests, sorted by their first half, and their places."""

    def __init__(self, digests: NDArray[np.uint64], places: NDArray[np.int32]) -> None:
        order = np.argsort(digests[:, 0])
        self.digests = digests[order]
        self.first = memoryview(self.digests[:, 0].data)  # for a single look-up bisect on this is faster than numpy
        self.places = places[order]

    def row(self, digest: _Digest) -> NDArray[np.int32] | None:
        """Return the place of a digest as a view that can be read and changed; None if it is not here."""
        number = bisect_left(self.first, digest[0])
        while number < len(self.first) and self.first[number] == digest[0]:
            if self.digests[number, 1] == digest[1]:
                found: NDArray[np.int32] = self.places[number]
                return found
            number += 1
        return None

    def and_also(self, new: Mapping[_Digest, Place]) -> _Sorted:
        digests = np.concatenate([self.digests, _pairs(new, np.uint64)])
        return _Sorted(digests, np.concatenate([self.places, _pairs(new.values(), np.int32)]))


def _pairs(pairs: Collection[tuple[int, int]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.array(list(pairs), dtype=dtype).reshape(-1, 2)


def _digest(key: bytes) -> _Digest:
    first, second = struct.unpack("<QQ", hashlib.blake2b(key, digest_size=16).digest())
    return first, second
