"""Run folders as files: finding them and reading their JSON; does not load torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fitrec_cache.common.files import files_below, parse_json, read_file, sum_of
from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.dataset.rules import rule_of
from fitrec_cache.errors import FitrecError, StoreCorrupt, StoreError, UsageError
from fitrec_cache.storage.sources import check_sources
from fitrec_cache.wording import command, is_plain

RUN_VERSION = 2

SUMS = "sums"
"""Key in ``run.json``: the checksum of each file of weights or outputs; :func:`~fitrec_cache.common.files.sum_of`."""

#: The exceptions raised when JSON lacks something, or holds a value of the wrong kind.
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration)

_TRAIN_AGAIN = "Train the head again"

#: A run.json larger than this was not written by this package: 100,000 clip ids of 100 bytes are 10 MB.
_MOST_JSON_BYTES = 200_000_000


@contextmanager
def refused_if_damaged(what: object, *more: type[Exception], remedy: str = _TRAIN_AGAIN) -> Iterator[None]:
    """Turn exceptions caused by incomplete or malformed files, raised inside ``with``, into a StoreCorrupt error.

    Args:
        what: The file or folder.
        more: Further exception types that such files cause.
        remedy: What the user should do.

    Raises:
        StoreCorrupt: In place of the original exception.
    """
    expected: tuple[type[Exception], ...] = (*_DAMAGE, *more)
    try:
        yield
    except expected as error:
        raise StoreCorrupt(f"{what} is damaged: {type(error).__name__} {error}. {remedy}") from error


def run_folders(folder: Path) -> list[Path]:
    """Return the run folders in and below a folder, by name; hidden ones (left by killed writers) are ignored."""
    names = (Path(name) for name in files_below(folder, []))
    return sorted(folder / name.parent for name in names if name.name == "run.json")


def run_folder_name(fold: str, seed: int) -> str:
    """Return the name of the folder of one of several runs of a call: ``seed-N`` or ``fold-F-seed-N``."""
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", fold)[:60]
    return f"fold-{slug}-seed-{seed}" if fold else f"seed-{seed}"


def is_run_folder_name(name: str) -> bool:
    """Say whether a folder of this name may be one that :func:`run_folder_name` named."""
    return name.startswith(("seed-", "fold-")) and "seed-" in name


def unfinished_in(folder: Path) -> list[Path]:
    """Return the folders, by name, of the seeds and folds of a call that have no run yet because it did not finish."""
    folders = (path for path in sorted(folder.glob("*")) if is_run_folder_name(path.name) and path.is_dir())
    return [path for path in folders if not (path / "run.json").exists()]


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the run folders in and below several folders, each once, in the order given.

    Raises:
        UsageError: If no folder is given, or one contains no run.
    """
    if not paths:
        raise UsageError("no run named: expected at least one folder made by `fitrec-cache train-head --out`")
    found: dict[Path, Path] = {}
    for path in paths:
        inside = run_folders(path)
        if not inside:
            raise UsageError(f"no run in {path}: expected a folder made by `{command('train-head', out=path)}`")
        for folder in inside:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def read_run_settings(folder: Path) -> dict[str, Any]:
    """Read the ``run.json`` of a run folder.

    Raises:
        StoreCorrupt: If it is missing or damaged.
        FitrecError: If it was written by another program version.
    """
    run = read_run_json(folder / "run.json")
    if (version := run.get("run_version")) != RUN_VERSION:
        newer = isinstance(version, int) and version > RUN_VERSION
        by = "a newer version of the program. Update this one" if newer else "another version of the program"
        advice = ", or train again into another folder" if newer else ". Train again (train-head --overwrite)"
        raise FitrecError(
            f"{folder}/run.json has version {version}, this program reads {RUN_VERSION}: it was made by {by}{advice}"
        )
    with refused_if_damaged(folder / "run.json"):
        check_sources(run["sources"])
        if odd := [name for name in _names(run) if not is_plain(name)]:
            raise ValueError(f"control or undecodable characters in {odd[0][:100]!r}")
    return run


def _names(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a ``run.json`` that are printed, except the rule of a split by lists, which contains paths."""
    split = run.get("split", {})
    rule = str(split.get("rule"))
    yield from map(str, (*run["labels"], *(run.get(name) for name in ("backbone", "recipe", "fold"))))
    yield from map(str, (*run["head"].values(), *run["training"], *run["training"].values()))
    yield "" if rule_of(rule).paths else rule
    for name in (*SIDES, "test_groups", "unknown", "unknown_classes", "notes"):
        yield from map(str, split.get(name, ()))


def read_run_json(path: Path, *, remedy: str = _TRAIN_AGAIN) -> dict[str, Any]:
    """Read one of the JSON files of a run folder, or of ``learn``; ``remedy`` is the advice if it is damaged.

    Raises:
        StoreCorrupt: If it is missing, damaged or not a JSON object.
        StoreError: If the system cannot read it.
    """
    with refused_if_damaged(path, remedy=remedy):
        found = parse_json(_bytes_of(path, most=_MOST_JSON_BYTES))
        if not isinstance(found, dict):
            raise ValueError("it has no JSON object")
        return found


def read_sealed(folder: Path, name: str, run: Mapping[str, Any]) -> bytes:
    """Read a file of weights or outputs of a run, after checking its checksum; runs of earlier versions have none.

    Raises:
        StoreCorrupt: If it is missing, or not the file that ``run.json`` was written for.
        StoreError: If the system cannot read it.
    """
    data = _bytes_of(folder / name)
    with refused_if_damaged(f"{SUMS!r} in {folder}/run.json"):
        told = run.get(SUMS, {}).get(name)
    if told not in (None, sum_of(data)):
        raise StoreCorrupt(
            f"{folder / name} is damaged or of another run: it is not the file that run.json was written for. Copy the "
            "whole run folder again, or train the head again"
        )
    return data


def _bytes_of(path: Path, most: float = math.inf) -> bytes:
    """Return the bytes of a file of a run; one that the system cannot read is not taken for damaged."""
    try:
        if path.stat().st_size > most:
            raise ValueError("it is too large")
        return read_file(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreCorrupt(f"{path} is missing: copy the whole run folder again, or train the head again") from error
    except OSError as error:
        advice = "Make it readable" if isinstance(error, PermissionError) else "Copy the whole run folder again"
        raise StoreError(f"{path} cannot be read: {error.strerror}. {advice}") from error


def contents_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Return, by clip id, the content identifier of each video that a head was trained, validated or tested on.

    Returns:
        The identifiers as :func:`fitrec_cache.video.spans.short_content` gives them; empty for features that were made
        elsewhere.

    Raises:
        StoreCorrupt: If they do not match the split.
    """
    with refused_if_damaged("'contents' in run.json"):
        told: Mapping[str, list[str]] = run.get("contents") or {}
        split = run["split"] if told else {}
        pairs = (zip(split[side], told[side], strict=True) for side in SIDES if told)
        return {str(clip): str(content) for side in pairs for clip, content in side}
