"""What is to be recognised: a folder of class folders, a list or a manifest becomes clips with labels."""

from __future__ import annotations

import csv
import difflib
import os
import re
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fitrec_cache.errors import ManifestError, UsageError, unknown_name

# fmt: off
VIDEO_SUFFIXES = (
    ".avi", ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv",
)
# fmt: on
"""File name endings taken for videos, in lower case."""

#: The answer that no class is probable enough: no class of a head can be called so.
UNKNOWN = "unknown"

#: Columns of a manifest that mean something here, in whatever capitals.
_COLUMNS = ("path", "label", "group", "split")

# fmt: off
FITNESS35 = (
    "BalanceBeam", "BenchPress", "Biking", "BodyWeightSquats", "BoxingPunchingBag", "BoxingSpeedBag", "BreastStroke",
    "CleanAndJerk", "FloorGymnastics", "FrontCrawl", "HandstandPushups", "HandstandWalking", "HighJump", "HulaHoop",
    "JavelinThrow", "JumpingJack", "JumpRope", "LongJump", "Lunges", "ParallelBars", "PoleVault", "PommelHorse",
    "PullUps", "Punch", "PushUps", "RockClimbingIndoor", "RopeClimbing", "Rowing", "Shotput", "StillRings", "TaiChi",
    "ThrowDiscus", "TrampolineJumping", "UnevenBars", "WallPushups",
)
"""A fitness subset of UCF101 with 35 classes, this project's own choice: the paper does not list its classes."""
# fmt: on

#: Folders of data sets that come divided.
_SIDES = {"train", "training", "val", "valid", "validation", "test", "testing"}

_GROUPED = re.compile(r"^(?:v_)?(?P<class>.+)_g(?P<g>\d+)(?:_.*)?$")
_INDEXED = re.compile(r"^(.*\.\w+)\s+\d+$")
_LONGEST_ID = 1000

#: A remark of :func:`find_clips`.
NO_GROUPS = "no groups known"

#: Of clips without further columns, all the same one.
NO_COLUMNS: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One video with what is known about it.

    Attributes:
        clip_id: Name of the clip in every store and report, ``Class/file.ext``, separated by ``/``.
        file: Path of the video below ``folder``, or absolute.
        folder: None where only the clip's cached frames are left. The file need not exist.
        label: Name of the exercise.
        group: Clips of one group were cut from one recording; None where that is not known.
        extra: All other columns of a manifest, as text.
    """

    clip_id: str
    label: str
    file: str = ""
    folder: Path | None = None
    group: str | None = None
    extra: Mapping[str, str] = field(default_factory=lambda: NO_COLUMNS, hash=False)

    @property
    def path(self) -> Path | None:
        """Where the video is; made when it is asked for, as a path kept for each clip would be most of its size."""
        return None if self.folder is None else self.folder / self.file


@dataclass(frozen=True, kw_only=True)
class ClipList:
    """Clips in the order of their ids, and what a user should know about them.

    Attributes:
        clips: The clips, sorted by ``clip_id``, no id twice, at least one.
        notes: Remarks in plain words, such as what was skipped and whether groups are known.
        passed_over: Names of clips that are there and were not asked for.
        unread: Folders that could not be looked into, and links that lead nowhere: clips may be missing.
        has_columns: Whether a manifest named them, so that their groups and further columns are meant as they are.
    """

    clips: tuple[Clip, ...]
    notes: tuple[str, ...]
    passed_over: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    has_columns: bool = False


def find_clips(
    videos: Path, *, root: Path | None = None, lists: Sequence[Path] = (), classes: str | None = None
) -> ClipList:
    """Return the clips that a folder, a manifest or a list names.

    Args:
        videos: A folder of class folders (the first folder below it is the label); a ``.csv`` manifest with the columns
            ``path`` and ``label``, optionally ``group`` and any other, separated by commas, semicolons or tabs; or a
            ``.txt`` list with a ``Class/file.avi`` a line, as UCF101's, with or without a class number behind it.
        root: Folder to which the paths of a manifest or list are relative; the folder it lies in if None.
        lists: UCF101-style lists; only clips that one of them names are kept (file name endings may differ).
        classes: None for all, ``fitness35``, names separated by commas, or a text file with one name a line, as
            UCF101's ``classInd.txt``. Upper and lower case are the same.

    Returns:
        The clips and the remarks. A listed file that does not exist is a clip like any other, and a remark.

    Raises:
        UsageError: If ``videos`` or a list is missing or of another kind, a class is unknown, or ``root`` is given with
            a folder.
        ManifestError: If there is no video, or the manifest or list cannot be used as it is.
    """
    unread: list[str] = []
    found, notes = _read(Path(videos), None if root is None else Path(root), unread)
    _check_ids(found)
    everything = found
    if lists:
        found, remarks = _listed(found, [Path(each) for each in lists])
        notes += remarks
    if classes is not None:
        found, remarks = _of_classes(found, classes)
        notes += remarks
    ordered = tuple(sorted(found, key=lambda clip: clip.clip_id))
    passed_over: tuple[str, ...] = ()
    if len(ordered) < len(everything):
        asked = {clip.clip_id for clip in ordered}
        passed_over = tuple(clip.clip_id for clip in everything if clip.clip_id not in asked)
    notes += _remarks(ordered)
    return ClipList(
        clips=ordered,
        notes=tuple(notes),
        passed_over=passed_over,
        unread=tuple(unread),
        has_columns=Path(videos).suffix.lower() == ".csv" and not stat.S_ISDIR(_mode(Path(videos))),
    )


def columns(clips: Sequence[Any]) -> dict[str, Any]:
    """Return what clips, found or held, are split by, a list each: ``clip_ids``, ``labels``, ``groups``, ``extra``."""
    return {
        "clip_ids": [c.clip_id for c in clips],
        "labels": [c.label for c in clips],
        "groups": [c.group for c in clips],
        "extra": [c.extra for c in clips],
    }


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


def listed_names(path: Path) -> list[tuple[int, str]]:
    """Return line number and name of each line of a list, whatever form the names have; else as :func:`read_ucf_list`.

    Raises:
        UsageError: If the file cannot be read.
        ManifestError: If it is not text or names nothing.
    """
    lines = [(number, _INDEXED.sub(r"\1", line).replace("\\", "/")) for number, line in _text_lines(path)]
    if not lines:
        raise ManifestError(f"{path} names no clip: expected a CLASS/FILE a line")
    for number, name in lines:
        if not PurePosixPath(name).name:
            raise ManifestError(f"{path}, line {number}: got '{name}', expected CLASS/FILE, such as Squat/v_1.avi")
    return lines


def read_ucf_list(path: Path) -> list[str]:
    """Return the clip ids that a UCF101-style list names.

    Args:
        path: A text file with a ``Class/file.avi`` a line, with or without a class number behind it.

    Returns:
        The ids in the order of the file, repetitions included.

    Raises:
        UsageError: If the file cannot be read.
        ManifestError: If a line has no class folder or the file names nothing.
    """
    return [name for _, name in _ucf_lines(Path(path))]


def _read(videos: Path, root: Path | None, unread: list[str]) -> tuple[list[Clip], list[str]]:
    """Return the clips of a folder, manifest or list in the order found, and remarks."""
    if stat.S_ISDIR(_mode(videos)):
        if root is not None:
            raise UsageError(f"--root {root} goes with a manifest or list, got the folder {videos}: leave it out")
        return _walk(videos, unread)
    if not _mode(videos):
        raise UsageError(f"no such file or folder: {videos}. Expected a folder of class folders, a .csv or a .txt list")
    base = videos.parent if root is None else root
    if not stat.S_ISDIR(_mode(base)):
        raise UsageError(f"no such folder: {base}. Expected the folder that the paths in {videos.name} are relative to")
    suffix = videos.suffix.lower()
    if suffix == ".csv":
        rows: Iterable[tuple[int, Clip]] = _manifest(videos, base)
    elif suffix == ".txt":
        rows = ((line, _clip(name, base, name.split("/")[0])) for line, name in _ucf_lines(videos))
    else:
        raise UsageError(f"{videos} is neither: expected a folder of class folders, a .csv manifest or a .txt list")
    found = _without_duplicates(rows, videos)
    notes = [*_odd_columns(found[0].extra), *_odd_sides(found)] if suffix == ".csv" else []
    if not any(clip.path is not None and _mode(clip.path) for clip in found):
        notes.append(f"no file that {videos.name} names is there, looked for in {base}: --root names another folder")
    return found, notes


def _mode(path: Path) -> int:
    """Return the file mode, 0 where nothing can be reached; Path.exists raises on names that are too long."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _clip(clip_id: str, base: Path, label: str) -> Clip:
    """Return the clip of a relative path, its group read off the file name."""
    return Clip(clip_id=clip_id, file=clip_id, folder=base, label=one_spelling(label), group=_named_group(clip_id))


def one_spelling(text: str) -> str:
    """Return the name of a class or group as it is kept: no spaces around it, letters with marks in one spelling."""
    return sys.intern(unicodedata.normalize("NFC", text).strip() or text)


def _named_group(name: str) -> str | None:
    found = _GROUPED.match(PurePosixPath(name).stem)
    # UCF101 writes two digits; others may write g1 and g01 for one recording.
    return one_spelling(f"{found['class']}_g{found['g'].lstrip('0').zfill(2)}") if found else None


# --- folders ---


def _walk(folder: Path, unread: list[str]) -> tuple[list[Clip], list[str]]:
    """Return the videos below the class folders, and remarks about what was passed over."""
    unreadable: list[OSError] = []
    names = sorted(files_below(folder, unreadable))
    videos = list(filter(is_video, names))
    others = [name for name in names if not is_video(name)]
    dead = [str(folder / name) for name in others if not PurePosixPath(name).suffix and not _mode(folder / name)]
    unread += [*(str(error.filename) for error in unreadable), *dead]
    inside, loose = [name for name in videos if "/" in name], [name for name in videos if "/" not in name]
    notes = [f"cannot read folder {plain_text(error.filename)}: {error.strerror}" for error in unreadable]
    notes += [f"{plain_text(link)} is a link that leads nowhere" for link in dead]
    if not inside:
        raise ManifestError("; ".join([*notes, _nothing_found(folder, loose)]))
    if others:
        shown = some(list(map(plain_text, others)))
        notes.append(f"skipped {_files_that(len(others))} not {' '.join(VIDEO_SUFFIXES)}: {shown}")
    if loose:
        notes.append(f"skipped {_files_that(len(loose))} in no class folder: {some(list(map(plain_text, loose)))}")
    if {name.split("/")[0].casefold() for name in inside} <= _SIDES and any(name.count("/") > 1 for name in inside):
        notes.append(
            "the class folders are called as sides of a split: if the classes are the folders inside, give one side, "
            "or a manifest with path, label and split"
        )
    if without := sorted(_top_folders(folder) - {name.split("/")[0] for name in inside}):
        which = "1 class folder holds" if len(without) == 1 else f"{len(without)} class folders hold"
        notes.append(f"{which} no video: {some(list(map(plain_text, without)))}")
    odd = {name: shown for name in inside if (shown := plain_text(name)) != name}
    taken = set(inside) if odd else set()
    clips = []
    for name in inside:
        shown = odd.get(name, name)
        if len(shown) > _LONGEST_ID or (name in odd and shown in taken):
            notes.append(f"skipped {shown[:60]}..: its name is too long or is that of another; rename it")
            continue
        if name in odd:
            taken.add(shown)
        clip = _clip(shown, folder, shown.split("/")[0])
        clips.append(clip if shown == name else replace(clip, file=name))
    return clips, notes


def _top_folders(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir() if stat.S_ISDIR(_mode(each)) and each.name[0] != "."}


def plain_text(name: str) -> str:
    r"""Return a file name that every store, report and terminal can hold: bytes that are no text become ``\xNN``.

    Example:
        >>> print(plain_text("A/tab\t.avi"))
        A/tab\x09.avi
    """
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) in {"Cc", "Cs"} else c for c in text)


def is_video(name: str) -> bool:
    """Say whether a file's name ends as that of a video."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def files_below(folder: Path, unreadable: list[OSError]) -> Iterator[str]:
    """Yield ``CLASS/FILE`` of every file below a folder that is not hidden; links are followed, never in a circle.

    Why a folder could not be looked into is added to ``unreadable``.
    """
    trails: dict[Path, set[Path]] = {}  # by folder: through which others it was reached
    for where, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        here = Path(where).resolve()
        above = {here, *here.parents} | trails.pop(Path(where), set())
        folders[:] = [d for d in folders if d[0] != "." and Path(where, d).resolve() not in above]
        trails |= {Path(where, d): above for d in folders}
        below = PurePosixPath(Path(where).relative_to(folder).as_posix())
        prefix = "" if below == PurePosixPath() else f"{below}/"
        yield from (prefix + file for file in files if file[0] != ".")


def _nothing_found(folder: Path, loose: Sequence[str]) -> str:
    if loose:
        shown = some(list(map(plain_text, loose)))
        return (
            f"{folder} has no class folders, only files such as {shown}. Expected CLASS/FILE: put each video "
            f"into a folder named after its exercise, or give a .csv manifest with path and label"
        )
    return f"no videos in {folder}. Expected class folders with files of type {' '.join(VIDEO_SUFFIXES)}"


# --- manifests and lists ---


def _manifest(path: Path, base: Path) -> Iterator[tuple[int, Clip]]:
    """Yield line number and clip for each row of a CSV manifest."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            between = _delimiter(file.readline())
            file.seek(0)
            reader = csv.DictReader(file, skipinitialspace=True, strict=True, delimiter=between)
            columns = _columns(reader.fieldnames, path)
            reader.fieldnames = columns
            for row in reader:
                yield reader.line_num, _row_clip(row, base, f"{path}, line {reader.line_num}")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _delimiter(header: str) -> str:
    """Return what separates the columns: spreadsheets of many countries write semicolons, others tabs."""
    return max(",;\t", key=header.count)


def _columns(header: Sequence[str] | None, path: Path) -> list[str]:
    """Return the column names, or say which are missing or doubled."""
    plain = [name.strip() for name in header or ()]
    names = [name.casefold() if name.casefold() in _COLUMNS else name for name in plain]
    if missing := [name for name in ("path", "label") if name not in names]:
        near = [(difflib.get_close_matches(each, names, n=1), each) for each in missing]
        hints = "".join(f" Is '{got[0]}' meant to be '{each}'?" for got, each in near if got)
        raise ManifestError(
            f"{path}: no column {' and '.join(missing)}. Got {', '.join(names) or 'no header'}; expected the columns "
            f"path,label and optionally group, separated by commas, semicolons or tabs.{hints}"
        )
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise ManifestError(f"{path}: column {', '.join(doubled)} occurs more than once: expected each once")
    return names


def _odd_columns(extra: Iterable[str]) -> list[str]:
    """Return remarks on further columns that look like a misspelt one that counts."""
    near = [(each, difflib.get_close_matches(each.casefold(), ("group", "split"), n=1)) for each in extra]
    return [
        f"column '{each}' is kept but not used: is it meant to be '{hit[0]}'?"
        for each, hit in near
        if hit and each != hit[0]
    ]


def _odd_sides(clips: Sequence[Clip]) -> list[str]:
    """Return remarks on values of the column split that ``--split manifest`` will not take."""
    odd = [clip for clip in clips if clip.extra.get("split", "") not in ("train", "val", "test", "")]
    if not odd:
        return []
    return [
        f"column split: {len(odd)} clips have a value that is none of train, val and test, such as "
        f"'{odd[0].extra['split']}' of {odd[0].clip_id}: --split manifest will refuse them"
    ]


def _row_clip(row: Mapping[str | None, str | None], base: Path, where: str) -> Clip:
    """Return the clip of a manifest row; a row shorter than the header has empty cells."""
    if None in row:
        raise ManifestError(f"{where}: more cells than columns. Put quotes around a value that contains a comma")
    cells = {str(name): (value or "").strip() for name, value in row.items()}
    written, label = cells.pop("path").replace("\\", "/"), cells.pop("label")
    for name, value in (("path", written), ("label", label)):
        if not value:
            raise ManifestError(f"{where}: empty {name}. Expected the {name} of a clip in every row")
    clip_id = file = PurePosixPath(written)
    if clip_id.is_absolute() or ".." in clip_id.parts:
        clip_id = PurePosixPath(label) / clip_id.name
    if "split" in cells:
        cells["split"] = cells["split"].casefold()
    group = (cells.pop("group") or None) if "group" in cells else _named_group(written)
    return Clip(
        clip_id=str(clip_id),
        file=str(file),
        folder=base,
        label=one_spelling(label),
        group=group and one_spelling(group),
        extra=cells or NO_COLUMNS,
    )


def _text_lines(path: Path) -> list[tuple[int, str]]:
    """Return line number and text of each line that is not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}. Expected a text file with one name a line") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not text in UTF-8: {error}") from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _ucf_lines(path: Path) -> list[tuple[int, str]]:
    """Return line number and clip id of each line of a UCF101-style list."""
    lines = listed_names(path)
    for number, name in lines:
        parts = PurePosixPath(name).parts
        if len(parts) < 2 or parts[0] == "/" or ".." in parts:
            raise ManifestError(f"{path}, line {number}: got '{name}', expected CLASS/FILE, such as Squat/v_1.avi")
    return [(number, str(PurePosixPath(name))) for number, name in lines]


def _without_duplicates(rows: Iterable[tuple[int, Clip]], path: Path) -> list[Clip]:
    seen: dict[str, int] = {}
    found = []
    for line, clip in rows:
        if clip.clip_id in seen:
            raise ManifestError(
                f"{path}: lines {seen[clip.clip_id]} and {line} both give the clip '{clip.clip_id}'. Expected each "
                f"once: remove one, or use paths relative to a common folder so that the ids differ"
            )
        seen[clip.clip_id] = line
        found.append(clip)
    if not found:
        raise ManifestError(f"{path} has a header but no rows: expected one row a clip")
    return found


def _check_ids(clips: Iterable[Clip]) -> None:
    """Refuse ids that a store or a report could not hold."""
    for clip in clips:
        for text in (clip.clip_id, clip.label, clip.group or ""):
            if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
                raise ManifestError(f"control or undecodable characters in {text!r}: expected plain text, rename it")
        if len(clip.clip_id) > _LONGEST_ID:
            raise ManifestError(
                f"clip id of {len(clip.clip_id)} characters: '{clip.clip_id[:60]}...'. Expected at most {_LONGEST_ID}"
            )


# --- choosing ---


def _listed(clips: Sequence[Clip], lists: Sequence[Path]) -> tuple[list[Clip], list[str]]:
    """Return the clips that a list names, whatever the ending of the file name is."""
    wanted = {_bare(name) for path in lists for name in read_ucf_list(path)}
    kept = [clip for clip in clips if _bare(clip.clip_id) in wanted]
    where = ", ".join(str(path) for path in lists)
    if not kept:
        raise ManifestError(
            f"no clip is in {where}: got clips such as '{clips[0].clip_id}', expected some of '{min(wanted)}' and "
            f"{len(wanted) - 1} more"
        )
    unknown = sorted(wanted - {_bare(clip.clip_id) for clip in kept})
    return kept, [f"{len(unknown)} clips named in {where} do not exist: {some(unknown)}"] if unknown else []


def _bare(clip_id: str) -> str:
    return str(PurePosixPath(clip_id).with_suffix(""))


def _of_classes(clips: Sequence[Clip], classes: str) -> tuple[list[Clip], list[str]]:
    """Return the clips of the classes asked for."""
    names, labels = _class_names(classes), sorted({clip.label for clip in clips})
    known = {label.casefold() for label in labels}
    missing = [name for name in names if name.casefold() not in known]
    if missing and (classes != "fitness35" or len(missing) == len(names)):
        raise _unknown_classes(missing, labels)
    wanted = {name.casefold() for name in names}
    kept = [clip for clip in clips if clip.label.casefold() in wanted]
    return kept, [f"{len(missing)} classes of {classes} have no clips: {', '.join(missing)}"] if missing else []


def _class_names(classes: str) -> list[str]:
    """Return the names that ``classes`` stands for."""
    if classes == "fitness35":
        return list(FITNESS35)
    path = Path(classes)
    if stat.S_ISREG(_mode(path)):
        names = [re.sub(r"^\d+\s+", "", line) for _, line in _text_lines(path)]
    elif path.suffix.lower() == ".txt":
        raise UsageError(f"no such file: {path}. Expected a text file with one class name a line")
    else:
        names = [name.strip() for name in classes.split(",") if name.strip()]
    if not names:
        raise UsageError(
            f"no class name in '{classes}': expected fitness35, NAME,NAME,.. or a file with one name a line"
        )
    return [one_spelling(name) for name in names]


def _unknown_classes(missing: Sequence[str], labels: Sequence[str]) -> UsageError:
    if len(missing) == 1:
        return unknown_name("class", missing[0], labels)
    nearest = {label.casefold(): label for label in labels}
    hints = []
    for name in missing:
        near = difflib.get_close_matches(name.casefold(), nearest, n=1)
        hints.append(f"'{name}' (did you mean '{nearest[near[0]]}'?)" if near else f"'{name}'")
    return UsageError(f"{len(missing)} unknown classes: {', '.join(hints)}. Expected some of {', '.join(labels)}")


# --- remarks ---


def _remarks(clips: Sequence[Clip]) -> list[str]:
    """Return what a user should know before spending time on these clips."""
    notes = [f"class {label} has one clip" for label, n in sorted(Counter(c.label for c in clips).items()) if n == 1]
    alike: dict[str, list[str]] = {}
    for label in sorted({clip.label for clip in clips}):
        if label.casefold() == UNKNOWN:
            notes.append(f"no head takes a class '{label}', which is an answer: rename it, or keep it for --unknown")
        alike.setdefault(" ".join(label.casefold().split()), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            notes.append(
                f"classes {', '.join(map(repr, labels))} differ in capitals or spaces only: are they one class?"
            )
    absent = [clip.clip_id for clip in clips if (path := clip.path) is not None and not _mode(path)]
    if absent:
        notes.append(f"{_files_that(len(absent))} missing, of {len(clips)}: {some(absent)}")
    groups = sorted({clip.group for clip in clips if clip.group is not None})
    without = sum(clip.group is None for clip in clips)
    if not groups:
        return [*notes, NO_GROUPS]
    of_all = f", {without} of {len(clips)} clips have none" if without else ""
    return [*notes, f"{len(groups)} groups, named like {groups[0]}{of_all}", *_shared_numbers(clips)]


def _shared_numbers(clips: Sequence[Clip]) -> list[str]:
    """Warn of groups that are bare numbers and stand for several classes: UCF101 numbers them within each class."""
    classes: dict[str, set[str]] = {}
    for clip in clips:
        if clip.group is not None and clip.group.isdecimal():
            classes.setdefault(clip.group, set()).add(clip.label)
    shared = sorted(group for group, labels in classes.items() if len(labels) > 1)
    if not shared:
        return []
    example = sorted(classes[shared[0]])[0]
    return [
        f"{len(shared)} groups are numbers that clips of several classes have, such as '{shared[0]}': each is taken as "
        f"one recording. If they begin again in each class, write {example}_g{int(shared[0]):02d}, or leave the column "
        "out where file names say it"
    ]


def _files_that(count: int) -> str:
    return f"{count} file that is" if count == 1 else f"{count} files that are"


def some(names: Sequence[str]) -> str:
    """Return the first of some names, for a remark."""
    return ", ".join(names[:3]) + (", .." if len(names) > 3 else "")
