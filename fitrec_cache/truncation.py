"""Whether a file is shorter than its own container structure says; decoders end such files without a word."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO


def is_cut(path: Path) -> bool:
    """Say whether an AVI, MP4 or MOV file ends before its container says; False for other containers.

    Args:
        path: A readable file.

    Returns:
        True if a chunk or box of the outermost level reaches beyond the end of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] == b"RIFF":
            return int.from_bytes(head[4:8], "little") + 8 > size
        return head[4:8] == b"ftyp" and _last_box_end(file, size) > size


def _last_box_end(file: BinaryIO, size: int) -> int:
    """Return where the last outermost box of an MP4 file ends; a size that makes no sense ends the walk."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the size is in the eight bytes behind the name
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: to the end of the file
            return size
        end += length
    return end
