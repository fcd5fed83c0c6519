"""Explain in plain words why a file cannot be read as a video, from its first bytes, and what to do about it."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from pathlib import Path

from fitrec_cache.video.truncation import FIRST_BOXES, boxes, is_cut

#: Number of bytes examined at the beginning of a file.
_HEAD = 4096

#: The greatest size, in bytes, of an index that is searched.
_MOST_INDEX = 64_000_000

_AGAIN = "copy or download it again"
_INSTEAD = "put the video in its place, or remove it"

#: The reason given for refusing an empty file.
EMPTY = f"file is empty (0 bytes): {_AGAIN}"

#: Patterns for the beginnings of other kinds of files: WHATWG's MIME Sniffing Standard, and RFC 1740 for AppleDouble.
_KINDS = {
    rb"\xff\xd8\xff": f"a picture (JPEG), not a video: {_INSTEAD}",
    rb"\x89PNG\r\n\x1a\n": f"a picture (PNG), not a video: {_INSTEAD}",
    rb"BM....\0\0\0\0": f"a picture (BMP), not a video: {_INSTEAD}",
    rb"II\*\0|MM\0\*": f"a picture (TIFF), not a video: {_INSTEAD}",
    rb"RIFF....WEBP": f"a picture (WebP), not a video: {_INSTEAD}",
    rb"....ftyp(hei[cx]|mif1)": f"a picture (HEIC), not a video: {_INSTEAD}",
    rb"RIFF....WAVE": "sound only (WAV), no pictures: give the video that it belongs to",
    rb"ID3[\x02-\x04]": "sound only (MP3), no pictures: give the video that it belongs to",
    rb"fLaC": "sound only (FLAC), no pictures: give the video that it belongs to",
    rb"PK\x03\x04": "an archive or document (ZIP), not a video: if videos are in it, unpack it",
    rb"Rar!\x1a\x07": "an archive (RAR), not a video: unpack it",
    rb"7z\xbc\xaf\x27\x1c": "an archive (7z), not a video: unpack it",
    rb"\x1f\x8b\x08": "an archive (gzip), not a video: unpack it",
    rb"%PDF-": f"a document (PDF), not a video: {_INSTEAD}",
    rb"\0\x05\x16\x07": f"what a Mac writes beside a file (AppleDouble), not the video: {_INSTEAD}",
    rb"(\xef\xbb\xbf)?\s*(?i:<!doctype\s+html|<html|<head|<body)\b": "a web page (HTML), not a video, as a failed "
    "download leaves: download it again",
    rb"(\xef\xbb\xbf)?#EXTM3U": "a playlist, which only names videos: download the video itself",
    rb"\0{64,}\Z": f"nothing but zeros where a video begins, as a copy or download leaves that broke off: {_AGAIN}",
}

_BEGINNINGS = {re.compile(begins, re.DOTALL): what for begins, what in _KINDS.items()}

_NO_TEXT = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def why_no_video(path: Path) -> str:
    """Say what kind of file this is if it does not open as a video, and what to do; empty if that is not known."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD)
        if not head:
            return EMPTY
        for begins, what in _BEGINNINGS.items():
            if begins.match(head):
                return what
        if _is_text(head):
            return f"a text, not a video: {_INSTEAD}"
        if is_cut(path):
            return f"cut off, as the file ends before its header says: {_AGAIN}"
        if head[4:8] in FIRST_BOXES and all(name != b"moov" for name, _, _ in boxes(file)):
            return (
                "not written to its end, as its index (moov) is missing: copy it again, or see if the camera plays it"
            )
    return ""


def is_encrypted(path: Path) -> bool:
    """Say whether an MP4 file says that its pictures are encrypted; False for other containers.

    Source:
        ISO/IEC 14496-12, 8.12: a sample entry ``encv`` in the box ``stsd``.
    """
    with suppress(OSError), path.open("rb") as file:
        for name, start, length in boxes(file):
            if name == b"moov" and length <= _MOST_INDEX:
                file.seek(start)
                return re.search(rb"stsd.{12}encv", file.read(length), re.DOTALL) is not None
    return False


def _is_text(head: bytes) -> bool:
    """Say whether bytes are the beginning of a UTF-8 text; the last character may be incomplete."""
    with suppress(UnicodeDecodeError):
        return bool(codecs.getincrementaldecoder("utf-8")().decode(head)) and not _NO_TEXT.search(head)
    return False
