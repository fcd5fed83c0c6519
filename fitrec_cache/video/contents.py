"""Contents of video files: opened as such, and identified by a hash."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from fitrec_cache.common.files import Stamp, file_stamp
from fitrec_cache.errors import VideoError
from fitrec_cache.video.spans import Span

_hashing = threading.Lock()


@contextmanager
def opened_video(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file that is expected to be a video.

    Raises:
        VideoError: If it cannot be opened, or cannot be read inside ``with``.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise VideoError("not a file")  # opening a named pipe would block forever
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        if path.is_symlink():
            raise VideoError("a link that leads nowhere: is the disk with the file connected?") from error
        raise VideoError("file not found") from error
    except OSError as error:
        raise VideoError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise VideoError(f"not a path: {error}") from error


def content_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal.

    Raises:
        VideoError: If the file cannot be read.
    """
    with opened_video(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash_once(path: Path, stamp: Stamp | None) -> str:
    """Return :func:`content_hash` of a file that contains several clips; it is read only once until ``stamp`` changes.

    One thread at a time reads a file. Errors are those of :func:`content_hash`.
    """
    with _hashing:
        return _hash_once(path, stamp)


@cache
def _hash_once(path: Path, _stamp: Stamp | None) -> str:
    return content_hash(path)


def content_of(path: Path, part: Span | None) -> str:
    """Return the content identifier of a clip's video; empty if it cannot be read."""
    with suppress(VideoError):
        return f"{content_hash_once(path, file_stamp(path))}{part or ''}"
    return ""
