"""Detect files that are shorter than their own container structure says; decoders end such files silently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = bytes.fromhex("1A45DFA3"), bytes.fromhex("18538067")

#: Written by FFmpeg as the size of a RIFF chunk whose size is unknown.
_NO_SIZE = b"\xff" * 4

#: MP4 files begin with ``ftyp``; QuickTime files, many of them older than that box, with any of these.
FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_BOXES = FIRST_BOXES | {b"moof"}


def is_cut(path: Path) -> bool:
    """Say whether an AVI, MP4, MOV, MKV or WebM file ends before its container says; False for other containers.

    It does if a chunk, box or element of the outermost level extends beyond the end of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] == b"RIFF":
            return _last_riff_end(file, size) > size
        if head[:4] == _EBML:
            return _segment_end(file) > size
        return head[4:8] in FIRST_BOXES and _last_box_end(file, size) > size


def _last_riff_end(file: BinaryIO, size: int) -> int:
    """Return where the last outermost chunk of an AVI file ends; files of 1 GB and more have several.

    A chunk written to a pipe, where the size could not be filled in later, has no size; then its start is returned.

    Source:
        Matrox, OpenDML AVI File Format Extensions 1.02 (1996).
    """
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(8)
        if head[:4] != b"RIFF" or head[4:] == _NO_SIZE:
            break
        end += 8 + int.from_bytes(head[4:], "little")
    return end


def _segment_end(file: BinaryIO) -> int:
    """Return where the segment of a Matroska file ends; 0 if its size is unknown, as in a live recording.

    Source:
        RFC 8794 (EBML), sections 4 to 6; RFC 9559 (Matroska), section 5.1.
    """
    file.seek(len(_EBML))
    file.seek(_vint(file) + file.tell())  # the header
    if file.read(4) != _SEGMENT:
        return 0
    length = _vint(file)
    return file.tell() + length if length else 0


def _vint(file: BinaryIO) -> int:
    """Read a number of 1 to 8 bytes: the leading zero bits of the first byte count the others. 0 means unknown."""
    first = int.from_bytes(file.read(1), "big")
    more = 8 - first.bit_length()
    if more > 7:
        return 0
    bits = 7 * (more + 1)
    value = int.from_bytes(bytes([first]) + file.read(more), "big") & ((1 << bits) - 1)
    return 0 if value == (1 << bits) - 1 else value


def _last_box_end(file: BinaryIO, size: int) -> int:
    """Return where the last outermost box of an MP4 or QuickTime file ends; the walk ends at anything else."""
    end = 0
    for name, start, length in boxes(file):
        end = start + length
        if end > size and name not in _BOXES:  # something was appended, such as a tag
            return size
    return end


def boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and length of the outermost boxes of an MP4 or QuickTime file; the last may be cut off.

    Source:
        ISO/IEC 14496-12, 4.2; Apple's QuickTime File Format Specification, on atoms.
    """
    start, size = 0, file.seek(0, 2)
    while start + 8 <= size:
        file.seek(start)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the length is in the eight bytes after the name
            length = int.from_bytes(head[8:16], "big")
        length = size - start if length < 8 else length  # 0: to the end of the file
        yield head[4:8], start, length
        start += length
