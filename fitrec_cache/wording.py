"""Numbers, names and intervals in words; uses the standard library only."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence

#: What is said on Windows.
NEEDS_LINUX = "fitrec-cache needs Linux; on Windows run it in WSL"

#: The greatest number of names that a message lists.
_MOST_NAMES = 30

#: Top-5 accuracy is reported only from this number of classes on; with fewer, five are half of them or more.
MANY_CLASSES = 11

#: The interval of a rate that is known from a single unit, which says nothing about others.
NO_BOUNDS = (0.0, 1.0)


#: Control characters, except line ends and tabs, and characters that change the direction of writing.
_STEERING = {n: f"\\x{n:02x}" for n in (*range(9), *range(11, 32), *range(127, 160))}
_STEERING |= {n: f"\\u{n:04x}" for n in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


#: Unicode's categories of control characters, and of surrogates, which stand for undecodable bytes.
_NO_TEXT = ("Cc", "Cs")


def options(**given: object) -> list[str]:
    """Return options of a command as words.

    None and False leave an option out, True gives its name alone, and a list repeats it for each value.

    Example:
        >>> options(cache="c", seed=[0, 1], frame_size=None, final=True)
        ['--cache', 'c', '--seed', '0', '--seed', '1', '--final']
    """
    words = []
    for name, value in given.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None and each is not False:
                words += [f"--{name.replace('_', '-')}", *([] if each is True else [str(each)])]
    return words


def command(*words: str, **given: object) -> str:
    """Return a command of this program with its options (:func:`options`), quoted for a shell."""
    return shlex.join(["fitrec-cache", *words, *options(**given)])


def is_plain(text: str) -> bool:
    """Say whether every store, report and terminal can hold a text: no control characters, no undecodable bytes."""
    printable = text.isascii() and text.isprintable()  # a fast path for most texts
    return printable or all(unicodedata.category(char) not in _NO_TEXT for char in text)


def visible(text: str) -> str:
    r"""Return a text with terminal control characters escaped, because names from outside may contain them.

    Example:
        >>> print(visible("Squat\x1b[2J"))
        Squat\x1b[2J
    """
    return text.translate(_STEERING)


def count(n: float) -> str:
    """Return a number of things with thousands separators; a fraction is shown only if there is one."""
    return f"{n:,.0f}" if abs(n - round(n)) < 0.05 else f"{n:,.1f}"


def plural(n: float, thing: str, things: str = "") -> str:
    """Return a number with its noun, in singular or plural.

    Example:
        >>> plural(1, "clip"), plural(1200, "clip"), plural(2, "class", "classes")
        ('1 clip', '1,200 clips', '2 classes')
    """
    return f"{count(n)} {thing if n == 1 else things or thing + 's'}"


def size(n_bytes: float) -> str:
    """Return a number of bytes in a suitable unit.

    Example:
        >>> size(999), size(3_400_000)
        ('999 bytes', '3.4 MB')
    """
    for unit in ("bytes", "kB", "MB"):
        if round(n_bytes, 0 if unit == "bytes" else 1) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.2f} GB"


def listed(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Return names separated by commas; if there are more than ``most``, the first ones and the number of others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def lasting(seconds: float) -> str:
    """Return an approximate time in words.

    Example:
        >>> lasting(0.0432), lasting(7.44), lasting(80.3), lasting(140), lasting(9000), lasting(432_000)
        ('0.043 s', '7.4 s', '80 s', '2 minutes', '2.5 hours', '5 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    if seconds < 90 * 60:
        return plural(round(seconds / 60), "minute")
    return plural(seconds / 3600, "hour") if seconds < 48 * 3600 else plural(seconds / 86400, "day")


def roughly(seconds: float) -> str:
    """Return a time in words, rounded to one digit.

    Example:
        >>> roughly(40), roughly(140), roughly(760), roughly(9000), roughly(432_000)
        ('less than a minute', 'about 2 minutes', 'about 10 minutes', 'about 2 hours', 'about 5 days')
    """
    if seconds < 60:
        return "less than a minute"
    hours = seconds / 3600
    unit, length = ("minute", 60) if hours < 1 else ("hour", 3600) if hours < 48 else ("day", 86400)
    return f"about {plural(float(f'{seconds / length:.1g}'), unit)}"


def between(low: int, high: int) -> str:
    """Return a range of whole numbers, such as "16 to 18", or a single number if both are equal."""
    return f"{low}" if low == high else f"{low} to {high}"


def bounds(interval: tuple[float, float]) -> str:
    """Return an interval in words, such as "19.5% to 54.3%", with the reason if it is the widest possible."""
    low, high = interval
    return f"{low:.1%} to {high:.1%}" + ", as there are too few groups or clips" * ((low, high) == NO_BOUNDS)


def some(names: Sequence[str]) -> str:
    """Return the first three names, for a note."""
    return listed(names, most=3)


def files_that(count: int) -> str:
    """Return "2 files that are", for a note."""
    return plural(count, "file that is", "files that are")
