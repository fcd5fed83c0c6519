"""The splits that a rule makes: one, or several, called folds, that test each clip once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fitrec_cache.dataset.clips import Clip, columns
from fitrec_cache.dataset.rules import check_rule, rule_of
from fitrec_cache.dataset.splits import Clips, Split, check_seed, divide
from fitrec_cache.errors import UsageError
from fitrec_cache.video.spans import recordings


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One of the splits that a rule makes; ``name`` is empty if the rule makes only one."""

    name: str
    split: Split


def folds_of_clips(rule: str, clips: Sequence[Clip], *, seed: int) -> list[Fold]:
    """Split clips that are in no cache yet as :func:`make_folds` does, with the parts of a file in one group."""
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
    """Split clips into training, validation and test, once or (folds) several times.

    Args:
        rule: ``group`` (no group on two sides, about 80/20 and then 80/20 of each class; a clip of unknown group
            counts as a group of its own), ``random`` (the same by clip), ``official1``, ``official2``, ``official3``
            (UCF101: groups 1-7, 8-14 or 15-21 are tested), ``list:TRAIN,TEST`` (two UCF101-style files), ``manifest``
            (its column ``split``), ``kfold:K`` (K test sides of about the same size, stratified by class; a known group
            is never on two sides), ``leave-one:COLUMN`` (each value of a manifest's column, or of ``group``, is the
            test side once), ``folds:COLUMN`` (the same for a column of folds that somebody made; only ``leave-one``
            counts the clips of a value as one unit) or ``auto`` (``group`` if any group is known, else ``random``). If
            a rule only fixes the test side, validation clips are taken from the rest as by ``group``.
        clip_ids: Name of each clip, length N, no name twice.
        labels: Class of each clip, length N.
        groups: Recording each clip was cut from, length N, None where unknown.
        extra: Further manifest columns of each clip, length N.
        seed: Seed of the rule. The same seed and clips give the same splits, in whatever order the clips are given.

    Returns:
        The splits. They contain every clip, except that ``list:`` and ``manifest`` leave out clips that they give no
        side.

    Raises:
        UsageError: If the rule is unknown or cannot be applied to the clips, if there are fewer than two classes, if a
            side would be empty or training would have one class, or if the seed is negative.
        ValueError: If the sequences differ in length or a name occurs twice.

    Source:
        ``kfold`` is scikit-learn's ``StratifiedGroupKFold``.

    Example:
        >>> names = [f"{label}/{k}.avi" for label in ("Lunge", "Squat") for k in range(5)]
        >>> of_clips = {"labels": [n[:5] for n in names], "groups": [None] * 10, "extra": [{}] * 10}
        >>> (fold,) = make_folds("random", clip_ids=names, **of_clips, seed=0)
        >>> len(fold.split.train), len(fold.split.val), len(fold.split.test)
        (6, 2, 2)
    """
    check_seed(seed)
    check_rule(rule)
    clips = Clips.of(clip_ids, labels, groups, extra)
    notes = []
    if rule == "auto" and any(groups):
        rule = "group"
    elif rule == "auto":
        rule = "random"
        notes = ["split by clip: no clip has a group, so test clips may resemble training clips"]
    folds = [
        Fold(name=name, split=divide(rule, clips, replace(sides, notes=[*notes, *sides.notes]), seed))
        for name, sides in rule_of(rule).make(clips, rule, seed)
    ]
    for fold in folds:
        trained = {labels[i] for i in fold.split.train.tolist()}
        if len(trained) < 2:
            raise UsageError(
                f"split '{rule}' trains on one class, {', '.join(trained)}: expected at least two to tell apart. Give "
                "training clips of another class too"
            )
    return folds
