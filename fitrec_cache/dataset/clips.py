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

#: The sides of a split.
SIDES = ("train", "val", "test")

#: What data sets call them besides, in lower case.
_ALSO = {"training": "train", "valid": "val", "validate": "val", "validation": "val", "testing": "test"}

#: The answer if no class is probable enough; no class of a head may have this name.
UNKNOWN = "unknown"

#: The shared ``extra`` of all clips without further columns.
NO_COLUMNS: Mapping[str, str] = {}

#: The greatest length of a clip id, in characters.
LONGEST_ID = 1000

_GROUPED = re.compile(r"^(?:v_)?(?P<class>.+)_g(?P<g>\d+)(?:_.*)?$")


def side_named(name: str) -> str:
    """Return the side of a split that a folder or cell means, in upper or lower case; other names in lower case."""
    name = name.casefold()
    return _ALSO.get(name, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One video, or a part of one, with what is known about it.

    Attributes:
        clip_id: Name of the clip in every store and report, ``Class/file.ext``, separated by ``/``; for a part of a
            file, followed by its times: ``session.mp4#t=12.5,20``.
        file: Path of the video below ``folder``, or absolute.
        folder: The folder; None if only the clip's cached frames are left. The file need not exist.
        label: Name of the exercise.
        span: The part of the video; None: all of it.
        group: Clips of one group were cut from one recording; None if that is not known.
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
        """Path of the video; computed on demand, because storing it would take most of a clip's memory."""
        return None if self.folder is None else self.folder / self.file


def clip_of(clip_id: str, base: Path, label: str) -> Clip:
    """Return the clip for a relative path, with the group that its file name gives."""
    return Clip(clip_id=clip_id, file=clip_id, folder=base, label=one_spelling(label), group=named_group(clip_id))


def columns(clips: Sequence[Any]) -> dict[str, Any]:
    """Return the columns by which clips are split, one list each: ``clip_ids``, ``labels``, ``groups``, ``extra``."""
    return {
        "clip_ids": [c.clip_id for c in clips],
        "labels": [c.label for c in clips],
        "groups": [c.group for c in clips],
        "extra": [c.extra for c in clips],
    }


def named_group(name: str) -> str | None:
    """Return the group in a file's name, such as ``Squat_g07`` for UCF101's ``v_Squat_g07_c01.avi``; else None."""
    found = _GROUPED.match(PurePosixPath(name).stem)
    # UCF101 writes two digits; others may write g1 and g01 for one recording.
    return one_spelling(f"{found['class']}_g{found['g'].lstrip('0').zfill(2)}") if found else None


def group_number(group: str) -> int | None:
    """Return the number in a group's name, on which UCF101's official splits are based.

    That is if the name is a number or ends in ``_g`` and a number; else None, because a number at the end of other
    names, such as those that ``audit`` proposes, has no meaning.

    Example:
        >>> group_number("BenchPress_g07"), group_number("12"), group_number("kitchen")
        (7, 12, None)
    """
    found = re.fullmatch(r"(?:.*_g)?([0-9]+)", group)
    return int(found[1]) if found else None


def one_spelling(text: str) -> str:
    """Normalise the name of a class or group: no surrounding spaces, and accented letters in one Unicode form (NFC)."""
    return sys.intern(unicodedata.normalize("NFC", text).strip() or text)


def plain_text(name: str) -> str:
    r"""Return a file name that every store, report and terminal can hold: undecodable bytes become ``\xNN``.

    Example:
        >>> print(plain_text("A/tab\t.avi"))
        A/tab\x09.avi
    """
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if is_plain(c) else f"\\x{ord(c):02x}" for c in text)


def file_id(name: str) -> str:
    """Return the name under which a file is known: like :func:`plain_text`, with accented letters in one Unicode form.

    A Mac may write such letters as two characters, other systems as one.
    """
    return unicodedata.normalize("NFC", plain_text(name))
