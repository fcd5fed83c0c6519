"""Detect HDF5 files that make the library loop forever: a name heap whose free-block list is circular.

Source: the HDF5 file format specification, "Disk Format: Level 1D - Local Heaps" and "Level 2A1 - Data Object Header
Prefix". That the library (2.0) loops was found by flipping bits.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

Buffer = bytes | mmap.mmap

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CONTINUATION, _SYMBOL_TABLE = 0x10, 0x11

#: If the root group has more messages than this, they are not followed; the whole file is searched for heaps instead.
_MOST_MESSAGES = 10_000

#: The value that marks the end of a list of free blocks.
_END = 1


def has_endless_heap(data: Buffer) -> bool:
    """Say whether opening the root group of this HDF5 file would never end.

    If the root group has the old plain layout, only the heaps it names are checked, which is quick for a large file;
    otherwise every heap in the file is checked.
    """
    base = _base(data)
    try:
        heaps = _root_heaps(data)
    except (struct.error, OverflowError, IndexError):  # an address outside the file
        heaps = None
    return any(_is_endless(data, base, at) for at in (_all_heaps(data) if heaps is None else heaps))


def _base(data: Buffer) -> int:
    """Return the offset at which the library takes the file to begin: 0, or 512, 1024, 2048, ..."""
    at = 0
    while at < len(data):
        if data[at : at + len(_SIGNATURE)] == _SIGNATURE:
            return at
        at = 2 * at or 512
    return 0


def _root_heaps(data: Buffer) -> set[int] | None:
    """Return all addresses that the root group gives for its heap; None for another layout or too many messages."""
    if data[:9] != _SIGNATURE + b"\0" or data[13:15] != b"\x08\x08":
        return None
    (header,), (cached,) = struct.unpack_from("<Q", data, 64), struct.unpack_from("<Q", data, 88)
    if data[header] != 1:
        return None
    heaps, messages = {cached}, 0
    chunks = [(header + 16, *struct.unpack_from("<I", data, header + 8))]
    for start, length in chunks:  # the list grows during the loop
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
        return False  # the list leads outside the file, which the library detects
    return False
