"""Turn a folder of class folders, a list or a manifest into clips with labels."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import is_file, is_folder, is_there
from fitrec_cache.dataset.class_folders import is_side, walk
from fitrec_cache.dataset.clips import LONGEST_ID, UNKNOWN, Clip, group_number, one_spelling
from fitrec_cache.dataset.manifests import list_clips, manifest_clips, read_ucf_list, text_lines
from fitrec_cache.errors import ManifestError, UsageError, unknown_name
from fitrec_cache.video.spans import file_of, is_part
from fitrec_cache.wording import files_that, is_plain, listed, plural, some

#: For at most this many unknown classes, the nearest known class is suggested.
_MOST_HINTS = 10

#: Value of ``group_by``: a clip's group is given by the folders between its class folder and its file.
FOLDER = "folder"

#: Names of manifest columns that may tell which clips were filmed together.
_OF_GROUPS = frozenset(
    ("person", "subject", "participant", "performer", "actor", "athlete", "user", "patient", "session", "recording")
)

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


@dataclass(frozen=True, kw_only=True)
class ClipList:
    """Clips sorted by their ids, and notes on them for the user.

    Attributes:
        clips: The clips, sorted by ``clip_id``, no id twice, at least one.
        notes: Notes in plain words, such as what was skipped and whether groups are known.
        passed_over: Clips that exist but were not asked for.
        unread: Folders that could not be read, and broken links; clips may be missing because of these.
        about_groups: Notes that no groups are known, and where they might be found.
        has_groups: Whether groups were given explicitly, by a manifest or by ``group_by``: then they are used as given,
            also for clips without one.
    """

    clips: tuple[Clip, ...]
    notes: tuple[str, ...]
    passed_over: tuple[Clip, ...] = ()
    unread: tuple[str, ...] = ()
    about_groups: tuple[str, ...] = ()
    has_groups: bool = False

    @cached_property
    def names(self) -> frozenset[str]:
        """The clips' ids."""
        return frozenset(clip.clip_id for clip in self.clips)


@plain_arguments
def find_clips(
    videos: Path,
    *,
    root: Path | None = None,
    lists: Sequence[Path] = (),
    classes: str | None = None,
    group_by: str | None = None,
) -> ClipList:
    """Return the clips that a folder, a manifest or a list names.

    Args:
        videos: A folder of class folders (the first folder below it is the label; if that is ``train``, ``val`` or
            ``test``, the second is the label and the first is the column ``split``); a ``.csv`` manifest with the
            columns ``path`` and ``label``, optionally ``group``, ``start`` and ``end`` (seconds) and any other,
            separated by commas, semicolons or tabs; or a ``.txt`` list with one ``Class/file.avi`` per line, like
            UCF101's, optionally followed by a class number.
        root: Folder to which the paths of a manifest or list are relative; if None, the folder that contains it.
        lists: UCF101-style lists; only clips that one of them names are kept (file name endings may differ).
        classes: None for all, ``fitness35``, names separated by commas, or a text file with one name per line, like
            UCF101's ``classInd.txt``. Case is ignored.
        group_by: Where a clip's group comes from: the manifest column of this name, or with ``folder`` the folders
            between class folder and file; None for the column ``group``, or else UCF101-style file names.

    Returns:
        The clips and the notes. A listed file that does not exist is a clip like any other; a note says so.

    Raises:
        UsageError: If ``videos`` or a list is missing or is of another kind, a class is unknown, ``root`` is given with
            a folder, or ``group_by`` gives no clip a group.
        ManifestError: If there is no video, or the manifest or list cannot be used as it is.
    """
    found, notes, unread, has_groups = _read(videos, root)
    _check_ids(found)
    everything = found
    if lists:
        found, remarks = _listed(found, lists)
        notes += remarks
    if classes is not None:
        wanted, remarks = choose_classes((clip.label for clip in found), classes)
        found = [clip for clip in found if clip.label in wanted]
        notes += remarks
    if group_by is not None:
        found = _grouped(found, group_by, has_groups=has_groups)
    ordered = tuple(sorted(found, key=lambda clip: clip.clip_id))
    passed_over: tuple[Clip, ...] = ()
    if len(ordered) < len(everything):
        asked = {clip.clip_id for clip in ordered}
        passed_over = tuple(clip for clip in everything if clip.clip_id not in asked)
    notes += _remarks(ordered)
    if group_by is None and is_folder(videos):
        notes += _too_high(videos, everything, {clip.label for clip in ordered})
    return ClipList(
        clips=ordered,
        notes=tuple(notes),
        passed_over=passed_over,
        unread=tuple(unread),
        about_groups=tuple(_about_groups(ordered)),
        has_groups=has_groups or group_by is not None,
    )


def _read(videos: Path, root: Path | None) -> tuple[list[Clip], list[str], list[str], bool]:
    """Return the clips in the order found, notes, what could not be read, and whether there is a column ``group``."""
    if is_folder(videos):
        if root is not None:
            raise UsageError(f"--root {root} goes with a manifest or list, got the folder {videos}: leave it out")
        return *walk(videos), False
    if not is_there(videos):
        raise UsageError(f"no such file or folder: {videos}. Expected a folder of class folders, a .csv or a .txt list")
    base = videos.parent if root is None else root
    if not is_folder(base):
        raise UsageError(f"no such folder: {base}. Expected the folder that the paths in {videos.name} are relative to")
    suffix = videos.suffix.lower()
    if suffix == ".csv":
        found, notes, has_groups = manifest_clips(videos, base)
    elif suffix == ".txt":
        found, notes, has_groups = list_clips(videos, base), [], False
    else:
        raise UsageError(
            f"{videos} is of another kind: expected a folder of class folders, a manifest, which must be named "
            ".csv even if it has tabs, or a .txt list"
        )
    if not any(clip.path is not None and is_there(clip.path) for clip in found):
        notes.append(f"no file that {videos.name} names is there, looked for in {base}: --root names another folder")
    return found, notes, [], has_groups


def _check_ids(clips: Iterable[Clip]) -> None:
    """Raise ManifestError for ids that a store or a report could not hold."""
    for clip in clips:
        for text in (clip.clip_id, clip.label, clip.group or ""):
            if not is_plain(text):
                raise ManifestError(f"control or undecodable characters in {text!r}: expected plain text, rename it")
        if len(clip.clip_id) > LONGEST_ID:
            raise ManifestError(
                f"clip id of {len(clip.clip_id)} characters: '{clip.clip_id[:60]}...'. Expected at most {LONGEST_ID}"
            )


def _listed(clips: Sequence[Clip], lists: Sequence[Path]) -> tuple[list[Clip], list[str]]:
    """Return the clips that a list names, ignoring the endings of file names."""
    wanted = {_bare(name) for path in lists for name in read_ucf_list(path)}
    kept = [clip for clip in clips if not wanted.isdisjoint(_names(clip.clip_id))]
    where = ", ".join(str(path) for path in lists)
    if not kept:
        raise ManifestError(
            f"no clip is in {where}: got clips such as '{clips[0].clip_id}', expected some of '{min(wanted)}' and "
            f"{len(wanted) - 1} more"
        )
    unknown = sorted(wanted.difference(*(_names(clip.clip_id) for clip in kept)))
    lost = f"{plural(len(unknown), 'clip')} named in {where} cannot be found: {some(unknown)}"
    return kept, [lost] if unknown else []


def _names(clip_id: str) -> set[str]:
    """Return the names by which a list may refer to a clip: its own, and for a part also that of its file."""
    return {_bare(clip_id), _bare(file_of(clip_id))}


def _bare(name: str) -> str:
    return name if is_part(name) else str(PurePosixPath(name).with_suffix(""))


def choose_classes(labels: Iterable[str], classes: str) -> tuple[list[str], list[str]]:
    """Return the labels that are asked for, and notes.

    Args:
        labels: The existing labels.
        classes: As for :func:`find_clips`.

    Raises:
        UsageError: If a class asked for has no clips; with ``fitness35`` some classes may be missing.
    """
    there = sorted(set(labels))
    known = {label.casefold() for label in there}
    names = _class_names(classes, known)
    missing = [name for name in names if name.casefold() not in known]
    if missing and (classes != "fitness35" or len(missing) == len(names)):
        raise _unknown_classes(missing, there)
    wanted = {name.casefold() for name in names}
    notes = [f"{len(missing)} classes of {classes} have no clips: {', '.join(missing)}"] if missing else []
    return [label for label in there if label.casefold() in wanted], notes


def _class_names(classes: str, known: Collection[str]) -> list[str]:
    """Return the class names that ``classes`` stands for; ``known`` has the existing classes in lower case.

    A number before a name in a file, as in UCF101's ``classInd.txt``, is removed unless it belongs to the name.
    """
    if classes == "fitness35":
        return list(FITNESS35)
    path = Path(classes)
    if is_file(path):
        lines = [line for _, line in text_lines(path)]
        names = [n if one_spelling(n).casefold() in known else re.sub(r"^\d+\s+", "", n) for n in lines]
    elif path.suffix.lower() == ".txt":
        raise UsageError(f"no such file: {path}. Expected a text file with one class name per line")
    else:
        names = [name.strip() for name in classes.split(",") if name.strip()]
    if not names:
        raise UsageError(
            f"no class name in '{classes}': expected fitness35, NAME,NAME,.. or a file with one name per line"
        )
    return [one_spelling(name) for name in names]


def nearest(name: str, labels: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the class most similar to a name, ignoring case; None if none is similar enough (difflib's ``cutoff``)."""
    known = {label.casefold(): label for label in labels}
    near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=cutoff)
    return known[near[0]] if near else None


def _unknown_classes(missing: Sequence[str], labels: Sequence[str]) -> UsageError:
    if len(missing) == 1:
        return unknown_name("class", missing[0], labels)
    near = [nearest(name, labels) for name in missing]
    hints = [f"'{name}'" + f" (did you mean '{hit}'?)" * bool(hit) for name, hit in zip(missing, near, strict=True)]
    return UsageError(
        f"{len(missing)} unknown classes: {listed(hints, _MOST_HINTS)}. Expected some of {listed(labels)}"
    )


def _grouped(clips: Sequence[Clip], by: str, *, has_groups: bool) -> list[Clip]:
    """Return the clips with groups from a column or from their folders; ``has_groups``: there is a column ``group``."""
    columns = {name for clip in clips for name in clip.extra}
    if column := next((name for name in [by, *sorted(columns)] if name in columns and _alike(name, by)), None):
        groups = [clip.extra.get(column, "") for clip in clips]
        wanted = "expected a value for some"
    elif has_groups and _alike(by, "group"):
        groups = [clip.group or "" for clip in clips]
        wanted = "expected a value for some"
    elif by == FOLDER:
        groups = ["/".join(_folders_between(clip)) for clip in clips]
        wanted = f"expected folders inside one named after its class, such as {clips[0].label}/anna/1.mp4"
    else:
        raise unknown_name("column", by, [*sorted(columns), FOLDER])
    if not any(groups):
        raise UsageError(f"--group-by {by} gives no clip a group, such as '{clips[0].clip_id}': {wanted}")
    return [replace(c, group=one_spelling(g) if g else None) for c, g in zip(clips, groups, strict=True)]


def _alike(name: str, other: str) -> bool:
    return name.casefold() == other.casefold()


def _folders_between(clip: Clip) -> tuple[str, ...]:
    """Return the names of the folders between a clip's class folder and its file, as in its id."""
    folders = PurePosixPath(clip.clip_id).parts[:-1]
    of_class = [place for place, name in enumerate(folders) if _alike(one_spelling(name), clip.label)]
    return folders[of_class[-1] + 1 :] if of_class else ()


def _about_groups(clips: Sequence[Clip]) -> list[str]:
    """Return notes that no clip has a group, and where groups might be found; empty if any clip has one."""
    if any(clip.group is not None for clip in clips):
        return []
    parts = "; parts of one file count as one" if any(clip.span for clip in clips) else ""
    return [f"no groups known{parts}", *_hints(clips)]


def _hints(clips: Sequence[Clip]) -> list[str]:
    columns = sorted({name for clip in clips for name in clip.extra if name.casefold() in _OF_GROUPS})
    if columns:
        return [f"column '{columns[0]}' may say which clips belong together: --group-by {columns[0]} takes it as group"]
    inside = Counter(folders for clip in clips if (folders := _folders_between(clip)))
    if sum(inside.values()) < len(clips) or max(inside.values()) == 1:
        return []
    if all(is_side(folders[0]) for folders in inside):
        return [
            f"folders such as '{min(inside)[0]}' inside the class folders do not count as sides of a split: for "
            "--split manifest, have them around the class folders, as in train/Squat/a.mp4, or write a manifest"
        ]
    return [
        f"clips lie in folders such as '{'/'.join(min(inside))}' inside their class folders: if these are people or "
        f"recordings, --group-by {FOLDER} takes them as groups"
    ]


def _too_high(videos: Path, clips: Sequence[Clip], used: Collection[str]) -> list[str]:
    """Return notes on class folders that seem to contain class folders, as if a folder too high up had been given.

    Args:
        videos: The folder given.
        clips: All clips in it, as only those of other classes tell whether folders are people.
        used: The classes that were asked for; others cause no note.
    """
    inside: dict[str, set[str]] = {}
    for clip in clips:
        inside.setdefault(clip.label, set()).add("/".join(_folders_between(clip)[:1]))
    deep = [label for label, folders in inside.items() if "" not in folders and len(folders) > 1]
    if len(deep) == len(inside) > 1:
        return []  # these are probably people or recordings; another note says so
    return [
        f"class folder '{label}' holds {len(inside[label])} folders of videos, such as "
        f"{listed(sorted(inside[label]), 3)}, and all of these count as '{label}': if they are the classes, give "
        f"{videos / label}"
        for label in deep
        if label in used and not is_side(label)  # another note says what to do with sides
    ]


def _remarks(clips: Sequence[Clip]) -> list[str]:
    """Return notes that a user should read before spending time on these clips."""
    notes: list[str] = []
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
    files = {(clip.folder, clip.file): file_of(clip.clip_id) for clip in clips if clip.folder is not None}
    absent = [name for (folder, file), name in files.items() if not is_there(folder / file)]
    if absent:
        notes.append(f"{files_that(len(absent))} missing, of {len(files):,}: {some(absent)}")
    groups = sorted({clip.group for clip in clips if clip.group is not None})
    without = sum(clip.group is None for clip in clips)
    if not groups:
        return notes
    of_all = f", {without} of {len(clips)} clips have none" if without else ""
    return [*notes, f"{plural(len(groups), 'group')}, named like {groups[0]}{of_all}", *_shared_numbers(clips)]


def _shared_numbers(clips: Sequence[Clip]) -> list[str]:
    """Return a warning if groups are numbers that span several classes: UCF101 numbers groups within each class."""
    classes: dict[str, set[str]] = {}
    for clip in clips:
        named = clip.group is not None and clip.group.casefold().startswith(f"{clip.label}_g".casefold())
        if clip.group is not None and not named and group_number(clip.group) is not None:
            classes.setdefault(clip.group, set()).add(clip.label)
    shared = sorted(group for group, labels in classes.items() if len(labels) > 1)
    if not shared:
        return []
    example, number = sorted(classes[shared[0]])[0], group_number(shared[0])
    return [
        f"{plural(len(shared), 'group')} of a number with clips of several classes, such as '{shared[0]}': each is "
        f"taken as one recording. If numbers begin again in each class, write {example}_g{number:02d}, or leave the "
        "column out where file names say it"
    ]
