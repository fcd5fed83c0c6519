"""Read clips and names from a CSV manifest or a UCF101-style list."""

from __future__ import annotations

import csv
import difflib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from fitrec_cache.common.files import as_given, is_there
from fitrec_cache.dataset.clips import NO_COLUMNS, SIDES, Clip, clip_of, named_group, one_spelling, side_named
from fitrec_cache.dataset.file_names import FileNames
from fitrec_cache.errors import ManifestError, UsageError
from fitrec_cache.video.spans import Span, is_part, part_of, parted, seconds_of
from fitrec_cache.wording import listed, plural

#: Columns of a manifest that have a meaning, in upper or lower case.
_COLUMNS = ("path", "label", "group", "split", "start", "end")

#: Names that data sets give to other columns that have a meaning, in lower case.
_ELSEWHERE = {
    **dict.fromkeys(("file", "filename", "file_name", "name", "video", "video_name", "video_path", "clip"), "path"),
    **dict.fromkeys(("class", "class_name", "category", "action", "activity", "exercise"), "label"),
    **dict.fromkeys(("subset", "partition"), "split"),
}

#: Names that data sets give to columns with the times of an exercise in a longer file.
_TIME = re.compile(
    r"(?:(?:time(?:stamp)?|frame)[ _-]*|[tf][ _-])?(?:start|end|stop|begin|onset|offset)s?"
    r"(?:[ _(-]*(?:time(?:stamp)?s?|frames?|seconds?|secs?|s|ms)\)?)?(?: - .*)?"  # ELAN: Begin Time - ss.msec
    r"|(?:first|last)[ _-]?frame|from|to",
    re.IGNORECASE,
)

_LENGTHS = ("duration", "length")

#: The advice on such columns.
_AS_TIMES = (
    "for clips that are parts of their files the columns are start and end, in seconds (a frame's number divided by "
    "the frames per second)"
)

_INDEXED = re.compile(r"^(.*\.\w+)\s+(\d+)$")


def manifest_clips(path: Path, base: Path) -> tuple[list[Clip], list[str], bool]:
    """Return the clips of a CSV manifest, in its order, notes on its columns, and whether it has a group column.

    Args:
        path: A table with the columns ``path`` and ``label``, separated by commas, semicolons or tabs. With ``start``
            and ``end``, or ``#t=START,END`` after a path, a clip is that part of its file; such a part is left out if
            it has no label.
        base: Folder that its paths are relative to.

    Raises:
        UsageError: If the file cannot be read.
        ManifestError: If it is not such a table, names no clip or one clip twice, or has an invalid time.
    """
    with _table(path) as reader:
        has_groups = "group" in (reader.fieldnames or ())
        names = FileNames(base)
        filled = (_as_given(row) for row in reader if not _is_empty(row))
        rows = [(reader.line_num, _row_clip(row, names, f"{path}, line {reader.line_num}")) for row in filled]
    found = _without_duplicates(((line, clip) for line, clip in rows if clip is not None), path)
    unnamed = len(rows) - len(found)
    notes = [f"{plural(unnamed, 'part')} without a label left out"] if unnamed else []
    return found, [*notes, *_parts(found), *_odd_columns(found[0].extra), *_odd_sides(found)], has_groups


def list_clips(path: Path, base: Path) -> list[Clip]:
    """Return the clips of a UCF101-style list, in its order; ``base`` and errors as in :func:`manifest_clips`."""
    lines = _list_lines(path)
    _refuse_numbers(path)
    if parts := [name for _, name in lines if is_part(name)]:
        raise ManifestError(
            f"{path} names a part of a file, '{parts[0]}': expected whole files. Parts go in a manifest"
        )
    names = FileNames(base)
    rows = ((line, clip_of(name, base, name.split("/")[0])) for line, name in lines)
    found = _without_duplicates(rows, path)
    return [replace(clip, file=names.find(clip.file) or clip.file) for clip in found]


def _refuse_numbers(path: Path) -> None:
    """Raise ManifestError if a folder's names have several numbers: then the folder is not the class."""
    numbers: dict[str, set[int]] = {}
    for _, line in text_lines(path):
        if found := _INDEXED.match(line):
            numbers.setdefault(PurePosixPath(found[1].replace("\\", "/")).parts[0], set()).add(int(found[2]))
    for folder, several in numbers.items():
        if len(several) > 1:
            got = listed(list(map(str, sorted(several))), 3)
            raise ManifestError(
                f"{path}: names in the folder '{folder}' have several numbers, {got}. "
                "Expected CLASS/FILE, with one number for each class: if the numbers are the classes, write a manifest "
                "with path and label; if they are something else, leave them out"
            )


def _as_given(row: Mapping[Any, Any]) -> dict[str | None, Any]:
    return {name: as_given(cell.strip()) if isinstance(cell, str) else cell for name, cell in row.items()}


@contextmanager
def _table(path: Path) -> Iterator[csv.DictReader[str]]:
    """Open a CSV manifest, with its known columns in lower case."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            between = _delimiter(file.readline())
            file.seek(0)
            reader = csv.DictReader(file, skipinitialspace=True, strict=True, delimiter=between)
            columns = _columns(reader.fieldnames, path)
            reader.fieldnames = columns
            yield reader
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        number = next((n for n, line in enumerate(lines, start=1) if "\ufffd" in line), 1)
        raise ManifestError(
            f"{path} is not in UTF-8, see line {number}: save it as 'CSV UTF-8', which spreadsheets offer beside CSV"
        ) from error
    except csv.Error as error:
        raise ManifestError(f"{path} is not a CSV file: {error}. Save it as CSV, UTF-8") from error


def _delimiter(header: str) -> str:
    """Return the separator of the columns: in many countries spreadsheets write semicolons, others write tabs."""
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(",;\t", key=unquoted.count)


def _columns(header: Sequence[str] | None, path: Path) -> list[str]:
    """Return the column names; raise ManifestError if some are missing or occur twice."""
    plain = [as_given(name.strip()) for name in header or ()]
    while plain and not plain[-1]:  # spreadsheets append empty columns
        plain.pop()
    names = [name.casefold() if name.casefold() in _COLUMNS else name for name in plain]
    if missing := [name for name in ("path", "label") if name not in names]:
        near = [(_meant(each, names), each) for each in missing]
        hints = "".join(f" Is '{got}' meant to be '{each}'?" for got, each in near if got)
        raise ManifestError(
            f"{path}: no column {' and '.join(missing)}. Got {', '.join(names) or 'no header'}; expected the columns "
            f"path,label and optionally group, split, start and end, separated by commas, semicolons or tabs.{hints}"
        )
    told = [name for name in ("start", "end") if name in names]
    others = [n for n in names if n not in told and (_is_time(n) or n.casefold() in _LENGTHS) and n != "offset"]
    if len(told) == 1 and others:
        raise ManifestError(
            f"{path}: of the columns start and end only {told[0]}, but {', '.join(others)}. Expected both ends of a "
            "clip in start and end, in seconds from the beginning of the file"
        )
    if doubled := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
        raise ManifestError(f"{path}: column {', '.join(doubled)} occurs more than once: expected each once")
    return names


def _parts(clips: Sequence[Clip]) -> list[str]:
    """Return notes on how many clips are parts of files, and on parts that overlap clips of another class."""
    files = [clip.file for clip in clips if clip.span is not None]
    if not files:
        return []
    parts = plural(len(files), "clip is a part", "clips are parts")
    notes = [f"{parts} of {plural(len(set(files)), 'file')}"]
    if over := _overlaps(clips):
        count, (clip, other) = plural(len(over), "part overlaps", "parts overlap"), over[0]
        notes.append(f"{count} one of the same file and of another class, such as {clip.clip_id} and {other.clip_id}")
    return notes


def _overlaps(clips: Sequence[Clip]) -> list[tuple[Clip, Clip]]:
    """Return each clip that begins before an earlier one of another class in the same file ends, with that one."""
    found = []
    latest: dict[str, dict[str, tuple[float, Clip]]] = {}  # by file and class: the clip that ends last
    for span, clip in sorted(((clip.span or Span(), clip) for clip in clips), key=lambda pair: pair[0].start):
        before = latest.setdefault(posixpath.normpath(clip.file), {})
        others = [each for label, each in before.items() if label != clip.label]
        end, other = max(others, key=lambda each: each[0], default=(0.0, clip))
        if span.start < end:
            found.append((clip, other))
        if span.end >= before.get(clip.label, (0.0, clip))[0]:
            before[clip.label] = span.end, clip
    return found


def _odd_columns(extra: Iterable[str]) -> list[str]:
    """Return notes on further columns that look like misspelt known ones, or like times."""
    notes = []
    if times := list(filter(_is_time, extra)):
        notes.append(f"{_columns_are(times)} kept but not used: {_AS_TIMES}")
    for each in (each for each in extra if each not in times):
        hit = next((name for name in ("group", "split") if name != each and _meant(name, [each])), "")
        if hit and hit not in extra:
            notes.append(f"column '{each}' is kept but not used: is it meant to be '{hit}'?")
    return notes


def _meant(column: str, names: Iterable[str]) -> str:
    """Return which of the names, if any, is probably meant to be a known column."""
    elsewhere = (name for name in names if _ELSEWHERE.get(name.casefold()) == column)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(column, folded, n=1)
    return next(elsewhere, folded[near[0]] if near else "")


def _columns_are(names: Sequence[str]) -> str:
    return f"columns {', '.join(names)} are" if len(names) > 1 else f"column {names[0]} is"


def _is_time(name: str) -> bool:
    return _TIME.fullmatch(name) is not None


def _odd_sides(clips: Sequence[Clip]) -> list[str]:
    """Return notes on values of the column ``split`` that ``--split manifest`` will refuse."""
    odd = [clip for clip in clips if clip.extra.get("split", "") not in (*SIDES, "")]
    if not odd:
        return []
    return [
        f"column split: {plural(len(odd), 'clip has', 'clips have')} a value that is none of train, val and test, such "
        f"as '{odd[0].extra['split']}' of {odd[0].clip_id}: --split manifest will refuse them"
    ]


def _is_empty(row: Mapping[str | None, Any]) -> bool:
    """Say whether a row is empty, as those that spreadsheets append."""
    beyond = row.get(None, ())
    cells = [*(cell for name, cell in row.items() if name is not None), *beyond]
    return not any(cell and cell.strip() for cell in cells)


def _row_clip(row: Mapping[str | None, Any], names: FileNames, where: str) -> Clip | None:
    """Return the clip of a manifest row; a row shorter than the header has empty cells.

    None for a part without a label; ``watch`` writes such rows where nothing was recognised.
    """
    if any(cell.strip() for cell in row.get(None, ())):
        raise ManifestError(f"{where}: more cells than columns. Put quotes around a value that contains a comma")
    cells = {name: value or "" for name, value in row.items() if name is not None}
    written, label = cells.pop("path"), cells.pop("label")
    if not written:
        raise ManifestError(f"{where}: empty path. Expected the path of a clip in every row")
    written, span = _timed(written, cells, where)
    file = names.find(written)
    if file is None and "\\" in written:  # a Windows path
        written = written.replace("\\", "/")
        file = names.find(written)
    _refuse_drive(written, names.base, where)
    if not label and span is not None:
        return None
    if not label:
        raise ManifestError(f"{where}: empty label. Expected the label of a clip in every row")
    clip_id = PurePosixPath(normalize("NFC", written))
    if clip_id.is_absolute() or ".." in clip_id.parts:
        clip_id = PurePosixPath(one_spelling(label)) / clip_id.name
    if "split" in cells:
        cells["split"] = side_named(cells["split"])
    group = (cells.pop("group") or None) if "group" in cells else named_group(written)
    return Clip(
        clip_id=f"{clip_id}{span or ''}",
        file=file or str(PurePosixPath(written)),
        folder=names.base,
        span=span,
        label=one_spelling(label),
        group=group and one_spelling(group),
        extra={name: one_spelling(value) for name, value in cells.items() if name} or NO_COLUMNS,
    )


def _refuse_drive(written: str, base: Path, where: str) -> None:
    """Raise ManifestError if a path begins with the letter of a Windows drive, unless there is such a file here."""
    if (drive := re.match(r"([A-Za-z]):[/\\]", written)) and not is_there(base / written):
        raise ManifestError(
            f"{where}: '{written}' is a path of Windows. In WSL, {drive[1]}:\\ is the folder /mnt/{drive[1].lower()}"
        )


def _timed(written: str, cells: dict[str, str], where: str) -> tuple[str, Span | None]:
    """Return a row's file and the part of it that is meant; the times are removed from ``cells``."""
    columns = {name: cells.pop(name) for name in ("start", "end") if name in cells}
    times = {name: text for name, text in columns.items() if text}
    try:
        file, span = parted(written)
        if span is not None and times:
            raise ValueError(f"got times behind the path, {span}, and in a column: expected one of both")
        if times:
            span = part_of(**{name: seconds_of(text) for name, text in times.items()})
    except ValueError as error:
        raise ManifestError(f"{where}: {error}") from error
    return file, span


def _without_duplicates(rows: Iterable[tuple[int, Clip]], path: Path) -> list[Clip]:
    seen: dict[str, int] = {}
    found = []
    for line, clip in rows:
        if clip.clip_id in seen:
            twice = f"{path}: lines {seen[clip.clip_id]} and {line} both give the clip '{clip.clip_id}'"
            if clip.span is None and (times := list(filter(_is_time, clip.extra))):
                raise ManifestError(f"{twice}; {_columns_are(times)} not used: {_AS_TIMES}")
            raise ManifestError(
                f"{twice}. Expected each once: remove one, or use paths relative to a common folder so that the ids "
                "differ"
            )
        seen[clip.clip_id] = line
        found.append(clip)
    if not found:
        raise ManifestError(
            f"{path} has a header but no rows with a label: expected one row per clip, and a label in some"
        )
    return found


def listed_names(path: Path) -> list[tuple[int, str]]:
    """Return line number and name of each line of a list, in any form of names; otherwise like :func:`read_ucf_list`.

    Raises:
        UsageError: If the file cannot be read.
        ManifestError: If it is not text or contains no names.
    """
    lines = [(number, _INDEXED.sub(r"\1", line).replace("\\", "/")) for number, line in text_lines(path)]
    lines = [(number, normalize("NFC", name)) for number, name in lines]
    if not lines:
        raise ManifestError(f"{path} names no clip: expected one CLASS/FILE per line")
    for number, name in lines:
        if not PurePosixPath(name).name:
            raise ManifestError(f"{path}, line {number}: got '{name}', expected CLASS/FILE, such as Squat/v_1.avi")
    return lines


def read_ucf_list(path: Path) -> list[str]:
    """Return the clip ids that a UCF101-style list names.

    Args:
        path: A text file with one ``Class/file.avi`` per line, optionally followed by a class number.

    Returns:
        The ids in the order of the file, repetitions included.

    Raises:
        UsageError: If the file cannot be read.
        ManifestError: If a line has no class folder or the file contains no names.
    """
    return [name for _, name in _list_lines(path)]


def _list_lines(path: Path) -> list[tuple[int, str]]:
    """Return line number and clip id of each line of a UCF101-style list."""
    lines = listed_names(path)
    for number, name in lines:
        parts = PurePosixPath(name).parts
        _refuse_drive(name, path.parent, f"{path}, line {number}")
        if len(parts) < 2 or parts[0] == "/" or ".." in parts:
            raise ManifestError(f"{path}, line {number}: got '{name}', expected CLASS/FILE, such as Squat/v_1.avi")
    return [(number, str(PurePosixPath(name))) for number, name in lines]


def text_lines(path: Path) -> list[tuple[int, str]]:
    """Return line number and text of each line that is not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}. Expected a text file with one name per line"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path} is not text in UTF-8, see line {line}: save it as plain text, UTF-8") from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
