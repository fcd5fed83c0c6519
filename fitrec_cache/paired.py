"""Statistics of two models on the same clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Bootstrap samples."""

FloatArray = NDArray[np.float64]

_AT_ONCE = 500  # bootstrap samples in memory at a time


def exact_p(gain: FloatArray, units: Sequence[str]) -> float:
    """Return the two-sided p-value of the exact McNemar test, generalised to several seeds and to clips of one group.

    If neither model were better, a unit's gain could as well have come out the other way round: its sign is tossed.

    Args:
        gain: By how many runs more the first model has each clip right, whole numbers, shape ``(N,)``.
        units: What each clip belongs to, length N: its group, or its own id.

    Returns:
        The probability of a total gain as far from zero or farther, over all ways to toss the signs of units, computed
        exactly; 1 where no unit gains. With one run and each clip a unit of its own this is McNemar's test.

    Example:
        One clip that only the first has right, eight that only the second has:

        >>> exact_p(np.array([1.0] + [-1.0] * 8), [str(i) for i in range(9)])
        0.0390625

    Source:
        McNemar, Psychometrika 12 (1947), 153-157, with the exact distribution; Fisher's randomisation test for paired
        differences, The Design of Experiments (1935), section 21.
    """
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    sums = np.abs(np.rint(np.bincount(unit, gain)).astype(int))
    sums = np.sort(sums[sums > 0])
    chance = np.ones(1)  # of each total from -reach to reach
    for size in sums:
        wider = np.zeros(len(chance) + 2 * size)
        wider[: len(chance)] += chance / 2
        wider[2 * size :] += chance / 2
        chance = wider
    reach, total = int(sums.sum()), abs(round(float(gain.sum())))
    return float(min(1.0, chance[: reach - total + 1].sum() * 2)) if total else 1.0


def units_of(clips: Sequence[str], groups: Sequence[str | None], *, rule: str = "", fold: str = "") -> list[str]:
    """Return what each clip belongs to and is drawn with.

    Args:
        clips: Ids of the test clips of one run.
        groups: Their groups, None where unknown.
        rule: Split rule of the run. Under ``leave-one:COLUMN`` all of a fold's clips belong together: the column was
            left out because its clips are not independent, and other values of it are what the figures speak of.
        fold: Name of the run's fold.

    Returns:
        The name of each clip's unit: the fold under that rule, else its group, or itself where that is unknown.
    """
    if rule.startswith("leave-one:") and fold:
        return [f"fold {fold}"] * len(clips)
    return [alone_unit(c) if g is None else f"group {g}" for c, g in zip(clips, groups, strict=True)]


def alone_unit(clip: str) -> str:
    """Return the unit of a clip that nothing is known to belong with."""
    return f"clip {clip}"


def count_right(
    tests: Iterable[tuple[Sequence[str], Sequence[str], NDArray[np.bool_]]],
) -> tuple[FloatArray, FloatArray, dict[str, str]]:
    """Return how often each clip was recognised and tested over several runs.

    Args:
        tests: For each run its test clips, the unit of each, and whether each was recognised, bool ``(N,)``.

    Returns:
        The two counts, shape ``(M,)`` for M different clips, and what each belongs to, by clip in the same order.
    """
    tests = list(tests)
    units: dict[str, str] = {}
    for clips, belongs, _ in tests:
        units |= zip(clips, belongs, strict=True)
    row = {clip: i for i, clip in enumerate(units)}
    right, tested = np.zeros(len(row)), np.zeros(len(row))
    for clips, _, recognised in tests:
        places = [row[clip] for clip in clips]
        right[places] += recognised
        tested[places] += 1
    return right, tested, units


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for having tried them all.

    Args:
        p_values: Of M tests, each in ``[0, 1]``.

    Returns:
        The adjusted values in the same order: below 0.05 in all where the chance of one false alarm is below 0.05.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source:
        Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def bootstrap_interval(total: FloatArray, weight: FloatArray, units: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % percentile interval of a ratio, where whole units are drawn again with replacement.

    Args:
        total: What each clip adds to the numerator, shape ``(N,)``.
        weight: What each clip adds to the denominator, shape ``(N,)``, positive.
        units: What each clip belongs to and is drawn with, length N: its group, or its own id.

    Returns:
        ``(low, high)`` of ``sum(total) / sum(weight)`` over 10,000 draws of as many units as there are.

    Raises:
        ValueError: If there is no clip.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; by units, as clips of one group are
        not independent.
    """
    if not len(total):
        raise ValueError("no clips: expected at least one")
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    n_units = int(unit.max()) + 1
    sums = np.stack([np.bincount(unit, x, n_units) for x in (total, weight)], axis=1)  # (U, 2)
    kinds, count = np.unique(sums, axis=0, return_counts=True)  # most units are like others: how many of each are drawn
    rng = np.random.default_rng(0)
    ratios = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        size = min(_AT_ONCE, RESAMPLES - start)
        drawn = rng.multinomial(n_units, count / n_units, size=size) @ kinds  # (size, 2)
        ratios.append(drawn[:, 0] / drawn[:, 1])
    low, high = np.quantile(np.concatenate(ratios), (0.025, 0.975))
    return float(low), float(high)
