"""The leaks of one split, as numbers and as the line that every training prints.

"Training" here includes validation: the recipe ``native`` finally trains on training and validation clips together, and
with ``paper`` validation chooses the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.auditing.near_duplicates import NearDuplicates
from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.dataset.splits import Split, count_sharing

SIDE_NAMES = ("", *SIDES)
"""The names of the side numbers that :func:`side_of` returns."""

UNLOOKED = "near-duplicates not looked for: run audit"
"""Part of a verdict that is based on groups only."""

UNLOOKED_IN_POSES = "near-duplicates not looked for, as poses do not show them: run audit with another backbone"
"""The same where there is nothing to compare but poses."""

_MAY = "split may leak (accuracy may be too high)"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a split leaks, as numbers and as one line of text.

    Attributes:
        leaks: Whether a test clip shares a group with a training clip, or has a near-duplicate there.
        sure: Whether that is more than near-duplicates where all groups are known and kept apart, which may be none.
        n_test: Number of test clips.
        share_group: Number of test clips whose group also has clips in training.
        near_duplicate: Number of test clips that have a near-duplicate in training.
        text: The verdict in words.
    """

    leaks: bool
    sure: bool
    n_test: int
    share_group: int
    near_duplicate: int
    text: str


def verdict(
    split: Split, groups: Sequence[str | None], found: NearDuplicates | None, unlooked: str = UNLOOKED
) -> Verdict:
    """Return whether a split leaks.

    Args:
        split: A split of N clips.
        groups: Recording each clip was cut from, length N, None where unknown.
        found: The near-duplicates among the N clips; None if they were not looked for.
        unlooked: What to say then.

    Returns:
        The verdict: training and validation clips against test clips.

    Example:
        >>> sides = {name: np.array([i]) for i, name in enumerate(("train", "val", "test"))}
        >>> verdict(Split(rule="random", notes=(), **sides), ["a", "b", "a"], None).text[:67]
        'split leaks (accuracy probably too high): 1 of 1 test clips share a'
    """
    share = count_sharing(split.test, [*split.train, *split.val], groups)
    near = int(np.isin(split.test, found.pairs[pairs_across([split], found, len(groups))]).sum()) if found else 0
    used = [i for side in split.sides for i in side.tolist()]
    unknown = sum(groups[i] is None for i in used)
    n = len(split.test)
    leaks, sure = bool(share or near), bool(share or unknown)  # of one class, clips of two recordings may look alike
    known = len(used) - unknown
    text = f"{_in_short(leaks=leaks, sure=sure, known=known, used=len(used), looked=found is not None)}: "
    text += _in_words(n, share if unknown < len(used) else None, near, found, unlooked)
    if 0 < unknown < len(used):
        text += f"; the group of {unknown} of {len(used)} clips is unknown"
    return Verdict(leaks=leaks, sure=leaks and sure, n_test=n, share_group=share, near_duplicate=near, text=text)


def _in_short(*, leaks: bool, sure: bool, known: int, used: int, looked: bool) -> str:
    if leaks:
        return "split leaks (accuracy probably too high)" if sure else _MAY
    if known < used and not looked:
        return "not known whether the split leaks"
    return "no leak found" if known else "no near-duplicate found"  # clips of one recording may look less alike


def _in_words(n: int, share: int | None, near: int, found: NearDuplicates | None, unlooked: str) -> str:
    alike = f"(similarity {found.threshold:.3f} or more)" if found else ""
    if share is None:
        return (
            f"{near} of {n} test clips have a near-duplicate in training {alike}; groups are unknown"
            if found
            else f"groups are unknown, {unlooked}"
        )
    told = f"{share} of {n} test clips share a group with training"
    return f"{told}, {near} have a near-duplicate there {alike}" if found else f"{told}; {unlooked}"


def side_of(split: Split, n_clips: int) -> NDArray[np.int64]:
    """Return the side of each clip: 0 none, 1 training, 2 validation, 3 test."""
    side = np.zeros(n_clips, dtype=np.int64)
    for number, clips in enumerate(split.sides, start=1):
        side[clips] = number
    return side


def pairs_across(splits: Sequence[Split], found: NearDuplicates, n_clips: int) -> NDArray[np.int64]:
    """Return the numbers of the pairs between training (or validation) and test in any of the splits."""
    hit = np.zeros(len(found.pairs), dtype=bool)
    for split in splits:
        low, high = np.sort(side_of(split, n_clips)[found.pairs], axis=1).T  # (M,) each
        hit |= (low > 0) & (low < 3) & (high == 3)
    return np.flatnonzero(hit)
