"""A trick that makes the HDF5 library loop for ever: a heap of names whose list of free blocks goes in a circle.

Source: the HDF5 file format specification, "Disk Format: Level 1D - Local Heaps" and "Level 2A1 - Data Object Header
Prefix"; that the library (2.0) does not end was found by flipping bits.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

Buffer = bytes | mmap.mmap

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CONTINUATION, _SYMBOL_TABLE = 0x10, 0x11

#: A root group with more messages than this is not followed message by message: all of the file is searched.
_MOST_MESSAGES = 10_000

#: Where a list of free blocks ends.
_END = 1


def has_endless_heap(data: Buffer) -> bool:
    """Say whether opening the root group of this HDF5 file would never end.

    Only what the root group names is looked at where it is of the old plain layout, which is quick for a large file;
    in any other file every heap is looked at.
    """
    base = _base(data)
    try:
        heaps = _root_heaps(data)
    except (struct.error, OverflowError, IndexError):  # it points outside of the file
        heaps = None
    return any(_is_endless(data, base, at) for at in (_all_heaps(data) if heaps is None else heaps))


def _base(data: Buffer) -> int:
    """Return where the library takes a file to begin: at its start, or at 512, 1024, 2048, ..."""
    at = 0
    while at < len(data):
        if data[at : at + len(_SIGNATURE)] == _SIGNATURE:
            return at
        at = 2 * at or 512
    return 0


def _root_heaps(data: Buffer) -> set[int] | None:
    """Return where the root group says that its heap is, each time it does; None for another layout."""
    if data[:9] != _SIGNATURE + b"\0" or data[13:15] != b"\x08\x08":
        return None
    (header,), (cached,) = struct.unpack_from("<Q", data, 64), struct.unpack_from("<Q", data, 88)
    if data[header] != 1:
        return None
    heaps, messages = {cached}, 0
    chunks = [(header + 16, *struct.unpack_from("<I", data, header + 8))]
    for start, length in chunks:  # which grow on the way
        at = start
        while at + 8 <= min(start + length, len(data)):
            kind, size = struct.unpack_from("<HH", data, at)
            if kind == _CONTINUATION and (chunk := struct.unpack_from("<QQ", data, at + 8)) not in chunks:
                chunks.append(chunk)
            if kind == _SYMBOL_TABLE:
                heaps.update(struct.unpack_from("<Q", data, at + 16))
            at += 8 + size
            messages += 1
            if messages > _MOST_MESSAGES:
                return None
    return heaps


def _all_heaps(data: Buffer) -> Iterator[int]:
    at = data.find(b"HEAP")
    while at >= 0:
        yield at
        at = data.find(b"HEAP", at + 1)


def _is_endless(data: Buffer, base: int, at: int) -> bool:
    seen: set[int] = set()
    try:
        if data[at : at + 4] != b"HEAP":
            return False
        size, free, place = struct.unpack_from("<QQQ", data, at + 8)
        while free != _END and free < size:
            if free in seen:
                return True
            seen.add(free)
            (free,) = struct.unpack_from("<Q", data, base + place + free)
    except (struct.error, OverflowError, IndexError):
        return False  # it leaves the file, which the library notices
    return False
