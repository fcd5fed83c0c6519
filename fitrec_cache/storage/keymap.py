"""Where each of many keys lies, in 24 bytes a key; a dict of strings takes some 200."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Keys that were added last are in a dict; they are sorted in when there are more than this, and than this share.
_FEWEST, _SHARE = 1024, 16

#: Number of a part and row in it.
Place = tuple[int, int]

#: A digest in two halves.
_Digest = tuple[int, int]


class KeyMap:
    """A map from keys to places that holds a digest of each key in place of the key.

    A digest has 128 bits: among a thousand million keys no two are expected to have the same one. Places may be looked
    up by one thread while another adds keys.
    """

    def __init__(self) -> None:
        self._new: dict[_Digest, Place] = {}
        self._sorted = _Sorted(np.empty((0, 2), dtype=np.uint64), np.empty((0, 2), dtype=np.int32))

    def __len__(self) -> int:
        return len(self._sorted.places) + len(self._new)

    def find(self, key: bytes) -> Place | None:
        """Return the place of a key; None of one that is not here."""
        digest = _digest(key)
        if (place := self._new.get(digest)) is not None:
            return place
        if (row := self._sorted.row(digest)) is None:
            return None
        part, number = row.tolist()  # both at once: another thread may be changing them
        return part, number

    def put(self, key: bytes, place: Place) -> None:
        """Let a key have this place, and no longer the one that it had."""
        digest = _digest(key)
        if (row := self._sorted.row(digest)) is not None:
            row[:] = place
            return
        self._new[digest] = place
        if len(self._new) > max(_FEWEST, len(self._sorted.places) // _SHARE):
            self._sorted = self._sorted.and_also(self._new)
            self._new = {}  # only now: who looks meanwhile finds a key in one of both

    def places(self) -> NDArray[np.int32]:
        """Return all places, ``(n, 2)``, in their order."""
        found = np.concatenate([self._sorted.places, _pairs(self._new.values(), np.int32)])
        return found[np.lexsort((found[:, 1], found[:, 0]))]


class _Sorted:
    """Digests, sorted by their first half, and the place of each."""

    def __init__(self, digests: NDArray[np.uint64], places: NDArray[np.int32]) -> None:
        order = np.argsort(digests[:, 0])
        self.digests = digests[order]
        self.first = memoryview(self.digests[:, 0].data)  # where bisect is quicker than numpy, for one at a time
        self.places = places[order]

    def row(self, digest: _Digest) -> NDArray[np.int32] | None:
        """Return the place of a digest, to be read or changed."""
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
