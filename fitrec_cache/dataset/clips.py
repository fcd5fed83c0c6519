"""A clip: one video, or a part of one, with what is known about it."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fitrec_cache.video.spans import Span
from fitrec_cache.wording import is_plain

#: What a split divides clips into.
SIDES = ("train", "val", "test")

#: The answer that no class is probable enough: no class of a head can be called so.
UNKNOWN = "unknown"

#: Of clips without further columns, all the same one.
NO_COLUMNS: Mapping[str, str] = {}

#: Characters of a name in stores and reports.
LONGEST_ID = 1000

_GROUPED = re.compile(r"^(?:v_)?(?P<class>.+)_g(?P<g>\d+)(?:_.*)?$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One video, or a part of one, with what is known about it.

    Attributes:
        clip_id: Name of the clip in every store and report, ``Class/file.ext``, separated by ``/``; of a part with its
            times behind, ``session.mp4#t=12.5,20``.
        file: Path of the video below ``folder``, or absolute.
        folder: None where only the clip's cached frames are left. The file need not exist.
        label: Name of the exercise.
        span: Which part of the video; None: all of it.
        group: Clips of one group were cut from one recording; None where that is not known.
        extra: All other columns of a manifest, as text.
    """

    clip_id: str
    label: str
    file: str = ""
    folder: Path | None = None
    span: Span | None = None
    group: str | None = None
    extra: Mapping[str, str] = field(default_factory=lambda: NO_COLUMNS, hash=False)

    @property
    def path(self) -> Path | None:
        """Where the video is; made when it is asked for, as a path kept for each clip would be most of its size."""
        return None if self.folder is None else self.folder / self.file


def clip_of(clip_id: str, base: Path, label: str) -> Clip:
    """Return the clip of a relative path, its group read off the file name."""
    return Clip(clip_id=clip_id, file=clip_id, folder=base, label=one_spelling(label), group=named_group(clip_id))


def columns(clips: Sequence[Any]) -> dict[str, Any]:
    """Return what clips, found or held, are split by, a list each: ``clip_ids``, ``labels``, ``groups``, ``extra``."""
    return {
        "clip_ids": [c.clip_id for c in clips],
        "labels": [c.label for c in clips],
        "groups": [c.group for c in clips],
        "extra": [c.extra for c in clips],
    }


def named_group(name: str) -> str | None:
    """Return the group that a file's name says, as UCF101's ``v_Squat_g07_c01.avi``: ``Squat_g07``; else None."""
    found = _GROUPED.match(PurePosixPath(name).stem)
    # UCF101 writes two digits; others may write g1 and g01 for one recording.
    return one_spelling(f"{found['class']}_g{found['g'].lstrip('0').zfill(2)}") if found else None


def group_number(group: str) -> int | None:
    """Return the number in a group's name, by which UCF101's official splits go.

    Args:
        group: Name of a group.

    Returns:
        The number of a name that ends in ``_g`` and a number or is one, else None: of other names, such as those that
        ``audit`` proposes, a number at the end means nothing.

    Example:
        >>> group_number("BenchPress_g07"), group_number("12"), group_number("kitchen")
        (7, 12, None)
    """
    found = re.fullmatch(r"(?:.*_g)?([0-9]+)", group)
    return int(found[1]) if found else None


def one_spelling(text: str) -> str:
    """Return the name of a class or group as it is kept: no spaces around it, letters with marks in one spelling."""
    return sys.intern(unicodedata.normalize("NFC", text).strip() or text)


def plain_text(name: str) -> str:
    r"""Return a file name that every store, report and terminal can hold: bytes that are no text become ``\xNN``.

    Example:
        >>> print(plain_text("A/tab\t.avi"))
        A/tab\x09.avi
    """
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if is_plain(c) else f"\\x{ord(c):02x}" for c in text)


def file_id(name: str) -> str:
    """Return by what name a file is known: as :func:`plain_text`, and letters with marks in one spelling.

    A Mac may write them in two characters, others in one.
    """
    return unicodedata.normalize("NFC", plain_text(name))
