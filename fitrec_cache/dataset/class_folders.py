"""Find the videos in class folders, at any depth, and report what else is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fitrec_cache.common.files import files_below, is_folder, is_there
from fitrec_cache.dataset.clips import LONGEST_ID, SIDES, Clip, clip_of, file_id, plain_text, side_named
from fitrec_cache.errors import ManifestError
from fitrec_cache.wording import files_that, plural, some

# fmt: off
VIDEO_SUFFIXES = (
    ".avi", ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv",
    ".asf", ".flv", ".f4v", ".3g2", ".ogv", ".vob",
)
# fmt: on
"""Endings of files that are treated as videos, in lower case."""

#: Endings of the single frames in which data sets such as Penn Action store a clip.
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

#: Of files that are skipped, the most frequent endings are counted.
_MOST_ENDINGS = 5

#: The columns that a manifest would have for the sides of a split. One shared dict per side serves all its clips.
_SIDES = {side: {"split": side} for side in SIDES}


def walk(folder: Path) -> tuple[list[Clip], list[str], list[str]]:
    """Return the videos below the class folders, notes about what was skipped, and what could not be read.

    If the class folders are inside folders named like the sides of a split, each clip gets its side as the column
    ``split``.
    """
    unreadable: list[OSError] = []
    names = sorted(files_below(folder, unreadable))
    videos = list(filter(is_video, names))
    others = [name for name in names if not is_video(name)]
    dead = [str(folder / name) for name in others if not _has_ending(name) and not is_there(folder / name)]
    unread = [*(str(error.filename) for error in unreadable), *dead]
    inside, loose = [name for name in videos if "/" in name], [name for name in videos if "/" not in name]
    notes = [f"cannot read folder {plain_text(error.filename)}: {error.strerror}" for error in unreadable]
    notes += [f"{plain_text(link)} is a link that leads nowhere" for link in dead]
    if not inside:
        raise ManifestError("; ".join([*notes, _nothing_found(folder, loose, others)]))
    if others:
        shown = some(list(map(plain_text, others)))
        endings = Counter(plain_text(PurePosixPath(name).suffix.lower()) or "without ending" for name in others)
        counted = ", ".join(f"{n} {ending}" for ending, n in endings.most_common(_MOST_ENDINGS))
        notes.append(f"skipped {files_that(len(others))} not {' '.join(VIDEO_SUFFIXES)} ({counted}): {shown}")
    if loose:
        notes.append(f"skipped {files_that(len(loose))} in no class folder: {some(list(map(plain_text, loose)))}")
    divided, remarks = _are_sides(inside)
    notes += remarks
    top_folders = {each.name for each in folder.iterdir() if is_folder(each) and each.name[0] != "."}
    closed = {Path(path).relative_to(folder).parts[0] for path in unread if Path(path) != folder}
    if without := sorted(top_folders - closed - {name.split("/")[0] for name in inside}):
        which = plural(len(without), "class folder holds", "class folders hold")
        notes.append(f"{which} no video: {some(list(map(plain_text, without)))}")
    odd = {name: shown for name in inside if (shown := file_id(name)) != name}
    taken = set(inside) if odd else set()
    clips = []
    for name in inside:
        shown = odd.get(name, name)
        if len(shown) > LONGEST_ID or (name in odd and shown in taken):
            notes.append(f"skipped {shown[:60]}..: its name is too long or is that of another; rename it")
            continue
        if name in odd:
            taken.add(shown)
        side, *inner = shown.split("/")
        clip = clip_of(shown, folder, inner[0] if divided else side)
        clip = replace(clip, extra=_SIDES[side_named(side)]) if divided else clip
        clips.append(clip if shown == name else replace(clip, file=name))
    return clips, notes, unread


def _are_sides(names: Sequence[str]) -> tuple[bool, list[str]]:
    """Say whether the top folders are sides of a split that contain the class folders; return notes on that, too."""
    tops = sorted({name.split("/")[0] for name in names})
    sides, others = list(filter(is_side, tops)), [top for top in tops if not is_side(top)]
    direct = [plain_text(name) for name in names if name.count("/") == 1 and is_side(name.split("/")[0])]
    if others and sides and not direct:
        return False, [
            f"folders named as sides of a split ({', '.join(sides)}) hold folders, but are taken for classes because "
            f"of {some(list(map(plain_text, others)))} beside them: if they are sides, move that elsewhere, or name it "
            "train, val or test"
        ]
    if others:
        return False, []
    if direct:
        return False, [
            "the class folders are called as sides of a split, and taken for classes as videos lie in them: "
            f"{some(direct)}. If the classes are folders inside, move these there"
        ]
    return True, [
        "folders named as sides of a split hold the class folders: --split manifest tests and validates by them"
    ]


def _has_ending(name: str) -> bool:
    """Say whether a name has a file's ending; the part after a dot in a folder's name may be a number, as in 1.5."""
    return PurePosixPath(name).suffix[1:2].isalpha()


def is_side(folder: str) -> bool:
    """Say whether a folder is named like a side of a split."""
    return side_named(folder) in SIDES


def is_video(name: str) -> bool:
    """Say whether a file's name has the ending of a video."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def _nothing_found(folder: Path, loose: Sequence[str], others: Sequence[str]) -> str:
    if loose:
        shown = some(list(map(plain_text, loose)))
        return (
            f"{folder} has no class folders, only files such as {shown}. Expected CLASS/FILE: put each video "
            f"into a folder named after its exercise, or give a .csv manifest with path and label"
        )
    nothing = f"no videos in {folder}. Expected class folders with files of type {' '.join(VIDEO_SUFFIXES)}"
    if pictures := [name for name in others if name.lower().endswith(_PICTURE_SUFFIXES)]:
        found = f"{plural(len(pictures), 'picture')} such as {plain_text(pictures[0])}"
        return f"{nothing}. Found {found}: make a video of the frames of each clip first, with FFmpeg for example"
    return nothing
