"""Parts of a video: their start and end, and their notation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_FRAGMENT = re.compile(r"#t=(?P<start>[0-9:.]+)?(?:,(?P<end>[0-9:.]+))?(?<!=)$")

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a video: the frames at ``[start, end)``, in seconds after the first frame, rounded to milliseconds.

    As text it is a URI fragment such as ``#t=12.5,20``, or ``#t=12.5`` for everything from that time on.

    Raises:
        ValueError: If ``end`` is not after ``start``.

    Source:
        W3C Media Fragments URI 1.0, 4.2.1.
    """

    start: float = 0.0
    end: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"got {_plain(self.start)} to {_plain(self.end)} s: expected an end after the start")

    def __str__(self) -> str:
        return f"#t={_plain(self.start)}" + (f",{_plain(self.end)}" if self.end < math.inf else "")


def _plain(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".") if seconds < math.inf else "inf"


def seconds_of(text: str) -> float:
    """Return a time in seconds, to the millisecond.

    Args:
        text: Seconds, or minutes and seconds, or hours, minutes and seconds, separated by colons. The decimal point may
            be a comma, as spreadsheets of many countries write it.

    Raises:
        ValueError: If it is not such a time.

    Example:
        >>> seconds_of("12.5"), seconds_of("1:02:03,5")
        (12.5, 3723.5)
    """
    found = _CLOCK.fullmatch(text)
    hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in (found.groups() if found else "000"))
    if found is None or (found[1] and minutes >= 60) or (found[2] and seconds >= 60):
        raise ValueError(f"got '{text}': expected a time in seconds, such as 12.5, or 1:02:03.5")
    return round(3600 * hours + 60 * minutes + seconds, 3)


def parted(name: str) -> tuple[str, Span | None]:
    """Split a clip's name into the name of its file and the part of the file; None for the whole file.

    Raises:
        ValueError: If a time is invalid, the end is not after the start, or there is no file name before them.

    Example:
        >>> parted("Squat/1.mp4#t=12.5,20")
        ('Squat/1.mp4', Span(start=12.5, end=20.0))
    """
    found = _FRAGMENT.search(name)
    if found is None:
        return name, None
    file, start, end = name[: found.start()], found["start"], found["end"]
    if not file or file.endswith("/"):
        raise ValueError(f"got '{name}': expected a file before the times")
    return file, part_of(seconds_of(start or "0"), seconds_of(end) if end else math.inf)


def part_of(start: float = 0.0, end: float = math.inf) -> Span | None:
    """Return a part of a video, or None if it is the whole video; raises the errors of :class:`Span`."""
    return None if (start, end) == (0.0, math.inf) else Span(start, end)


def file_of(name: str) -> str:
    """Return the name of a clip's file, without the times after it.

    Example:
        >>> file_of("Squat/1.mp4#t=12.5,20")
        'Squat/1.mp4'
    """
    return _FRAGMENT.sub("", name)


def short_content(key: str) -> str:
    """Return a short content identifier: the first 16 digits of the file's hash, followed by the part.

    Example:
        >>> short_content("0123456789abcdef" * 4 + "#t=2,5")
        '0123456789abcdef#t=2,5'
    """
    file = file_of(key)
    return file[:16] + key[len(file) :]


def is_part(name: str) -> bool:
    """Say whether a clip's name has times after the name of its file."""
    return file_of(name) != name


def recordings(keys: Sequence[str], groups: Sequence[str | None], names: Sequence[str]) -> dict[str, str]:
    """Return the group of each file that has parts: the first group that one of its clips has, or else the file's name.

    Training on one part of a recording and testing on another would be the very leak that groups prevent.

    Args:
        keys: For each clip, an identifier of its file, followed by the part if it is one.
        groups: The known groups, None where unknown.
        names: Ids of the clips.
    """
    files = {file_of(key) for key in keys if is_part(key)}
    found: dict[str, str] = {}
    for key, group, name in sorted(zip(keys, groups, names, strict=True), key=lambda clip: (clip[1] is None, clip[2])):
        if (file := file_of(key)) in files:
            found.setdefault(file, group or file_of(name))
    return found
