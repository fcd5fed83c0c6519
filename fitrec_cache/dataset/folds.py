"""Split rules that test every clip once: ``kfold:K``, ``folds:COLUMN``, ``leave-one:COLUMN``; others give one fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fitrec_cache.common.files import digest
from fitrec_cache.dataset.clips import SIDES, Clip, columns, plain_text
from fitrec_cache.dataset.splits import Split, check_seed, hold_out, make_split
from fitrec_cache.dataset.units import units_of
from fitrec_cache.errors import UsageError
from fitrec_cache.evaluation.metrics import stratified_folds
from fitrec_cache.video.spans import recordings
from fitrec_cache.wording import plural


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One of the splits that a rule makes; ``name`` is empty if the rule makes only one."""

    name: str
    split: Split


def folds_of_clips(rule: str, clips: Sequence[Clip], *, seed: int) -> list[Fold]:
    """Split clips that are in no cache yet as :func:`make_folds` does, with the parts of a file in one group.

    Args:
        rule: The rule.
        clips: The clips.
        seed: Seed of the rule.

    Raises:
        UsageError: If the rule is unknown or cannot be applied to the clips.
    """
    names = [f"{clip.file}{clip.span or ''}" for clip in clips]
    of_file = recordings(names, [clip.group for clip in clips], names)
    return make_folds(rule, **columns([replace(c, group=c.group or of_file.get(c.file)) for c in clips]), seed=seed)


def make_folds(
    rule: str,
    *,
    clip_ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str | None],
    extra: Sequence[Mapping[str, str]],
    seed: int,
) -> list[Fold]:
    """Split clips by any rule.

    Args:
        rule: ``kfold:K`` (K test sides of about the same size, stratified by class; a known group is never on two
            sides), ``leave-one:COLUMN`` (each value of a manifest's column, or of ``group``, is the test side
            once), ``folds:COLUMN`` (the same for a column of folds that somebody made; only ``leave-one`` counts the
            clips of a value as one unit), ``manifest`` (its column ``split``), or a rule of
            :func:`fitrec_cache.dataset.splits.make_split`.
        clip_ids: Name of each clip, length N, no name twice.
        labels: Class of each clip, length N.
        groups: Recording each clip was cut from, length N, None where unknown.
        extra: Further manifest columns of each clip, length N.
        seed: Seed of the rule. The same seed and clips give the same folds, in whatever order the clips are given.

    Returns:
        The folds. In each, validation clips are taken from the clips that are not tested, as by ``group`` or
        ``random``.

    Raises:
        UsageError: If the rule is unknown or cannot be applied to the clips.

    Source:
        ``kfold`` is scikit-learn's ``StratifiedGroupKFold``.
    """
    check_seed(seed)
    clips: dict[str, Any] = {"clip_ids": clip_ids, "labels": labels, "groups": groups}
    kind, _, argument = rule.partition(":")
    if rule == "manifest":
        folds = [Fold(name="", split=_by_manifest(clips, extra, seed))]
    elif kind in ("kfold", "folds", "leave-one"):
        sides = (
            _k_sides(argument, clip_ids, labels, groups, seed)
            if kind == "kfold"
            else _sides_by_column(rule, clip_ids, groups, extra)
        )
        folds = [
            Fold(name=name, split=hold_out(rule, test, set(clip_ids) - test, **clips, seed=seed))
            for name, test in sides
        ]
    else:
        folds = [Fold(name="", split=make_split(rule, **clips, seed=seed))]
    for fold in folds:
        trained = {labels[i] for i in fold.split.train.tolist()}
        if len(trained) < 2:
            raise UsageError(
                f"split '{rule}' trains on one class, {', '.join(trained)}: expected at least two to tell apart. Give "
                "training clips of another class too"
            )
    return folds


def _k_sides(
    argument: str, clip_ids: Sequence[str], labels: Sequence[str], groups: Sequence[str | None], seed: int
) -> list[tuple[str, set[str]]]:
    k = _number_of_folds(argument)
    order = sorted(range(len(clip_ids)), key=lambda i: clip_ids[i])
    units = units_of([clip_ids[i] for i in order], [groups[i] for i in order])
    if len(set(units)) < k:
        what = "clips" if all(group is None for group in groups) else "groups"
        raise UsageError(f"split 'kfold:{argument}' of {len(set(units))} {what}: expected no more folds than {what}")
    if (most := max(Counter(labels).values())) < k:
        raise UsageError(f"split 'kfold:{argument}': the largest class has {most} clips, expected no more folds")
    sides = stratified_folds([labels[i] for i in order], units, k, seed)
    return [(_number(n, k), {clip_ids[order[i]] for i in side}) for n, side in enumerate(sides, start=1)]


def _number_of_folds(argument: str) -> int:
    if not (argument.isascii() and argument.isdigit()) or int(argument) < 2:
        raise UsageError(f"split 'kfold:{argument}': expected kfold:K with a whole number K of at least 2")
    return int(argument)


def values_of(column: str, groups: Sequence[str | None], extra: Sequence[Mapping[str, str]]) -> list[str]:
    """Return each clip's value in a manifest column (``group``: its group); empty if it has none."""
    return [g or "" for g in groups] if column == "group" else [e.get(column, "") for e in extra]


def column_digest(
    rule: str, clip_ids: Sequence[str], groups: Sequence[str | None], extra: Sequence[Mapping[str, str]]
) -> str:
    """Return a digest of each clip's value in the column by which a rule makes folds; empty for other rules."""
    kind, _, column = rule.partition(":")
    if kind not in ("folds", "leave-one"):
        return ""
    return digest(sorted(zip(clip_ids, values_of(column, groups, extra), strict=True)))


def _sides_by_column(
    rule: str, clip_ids: Sequence[str], groups: Sequence[str | None], extra: Sequence[Mapping[str, str]]
) -> list[tuple[str, set[str]]]:
    column = rule.partition(":")[2]
    values = values_of(column, groups, extra)
    if column == "group" and not any(values):
        raise UsageError(f"split '{rule}': no clip's group is known; extract from a manifest with the column group")
    if not column or not any(values):
        known = sorted({name for e in extra for name in e})
        raise UsageError(
            f"split '{rule}': no clip has that column. Known are group and "
            f"{', '.join(known) or 'no others'}; extract from a manifest that has it"
        )
    if bare := [c for c, v in zip(clip_ids, values, strict=True) if not v]:
        without = plural(len(bare), "clip has", "clips have")
        raise UsageError(
            f"split '{rule}': {without} no value, such as '{bare[0]}': give each one by a manifest. A row "
            "whose file is missing gives nothing; `extract --prune` without such rows removes the clips"
        )
    if len(set(values)) < 2:
        raise UsageError(f"split '{rule}': every clip has the value '{values[0]}', expected at least two")
    tested = sorted(set(values))
    return [
        (
            f"{_number(n, len(tested))}-{plain_text(value)}",
            {c for c, v in zip(clip_ids, values, strict=True) if v == value},
        )
        for n, value in enumerate(tested, start=1)
    ]


def _number(fold: int, folds: int) -> str:
    """Return the number of a fold, from 1, zero-padded so that names sort in its order: at least two digits."""
    return f"{fold:0{max(2, len(str(folds)))}d}"


def _by_manifest(clips: Mapping[str, Any], extra: Sequence[Mapping[str, str]], seed: int) -> Split:
    names = clips["clip_ids"]
    column = [e.get("split", "") for e in extra]
    unknown = sorted(set(column).difference(SIDES, {""}))
    if unknown or "test" not in column or "train" not in column:
        example = next((f", such as of {name}" for name, s in zip(names, column, strict=True) if s in unknown), "")
        raise UsageError(
            f"--split manifest reads the manifest's column split: got {unknown or sorted(set(column))}{example}; "
            "expected train, test, optionally val. Correct the manifest and extract it again"
        )
    train, val, test = ([c for c, s in zip(names, column, strict=True) if s == side] for side in SIDES)
    return hold_out("manifest", test, train, val or None, **clips, seed=seed)
