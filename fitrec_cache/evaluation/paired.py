"""Statistics for comparing two models on the same clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from fitrec_cache.evaluation.metrics import wilson

FloatArray = NDArray[np.float64]


def exact_p(gain: FloatArray, units: Sequence[str]) -> float:
    """Return the two-sided p-value of the exact sign-flip test by units, over all runs.

    If neither model were better, each unit's gain could equally well have had the opposite sign; so signs are flipped.

    Args:
        gain: In how many more runs the first model recognises each clip, whole numbers, shape ``(N,)``: the sum over
            several runs, not the mean.
        units: The statistical unit of each clip, length N: its group, or its own id.

    Raises:
        ValueError: If a gain is not a whole number.

    Returns:
        The probability, over all combinations of flipped signs of units, of a total gain at least as far from zero,
        computed exactly; 1 if no unit has a gain. With one run and each clip a unit of its own this is McNemar's test.

    Example:
        One clip that only the first model recognises, eight that only the second does:

        >>> exact_p(np.array([1.0] + [-1.0] * 8), [str(i) for i in range(9)])
        0.0390625

    Source:
        McNemar, Psychometrika 12 (1947), 153-157, with the exact distribution; Fisher's randomisation test for paired
        differences, The Design of Experiments (1935), section 21.
    """
    gain = np.asarray(gain, dtype=np.float64)
    if (gain != np.rint(gain)).any():
        odd = float(gain[gain != np.rint(gain)][0])
        raise ValueError(f"a gain is {odd:g}: expected whole numbers, how many runs more have a clip right")
    sums = np.abs(gains_by_unit(gain, units))
    sums = np.sort(sums[sums > 0])
    chance = np.ones(1)  # probability of each total from -reach to reach
    for size in sums:
        wider = np.zeros(len(chance) + 2 * size)
        wider[: len(chance)] += chance / 2
        wider[2 * size :] += chance / 2
        chance = wider
    reach, total = int(sums.sum()), abs(round(float(gain.sum())))
    return float(min(1.0, chance[: reach - total + 1].sum() * 2)) if total else 1.0


def gains_by_unit(gain: FloatArray, units: Sequence[str]) -> NDArray[np.int64]:
    """Return the gain of each unit, summed over its clips, whole numbers ``(U,)``; arguments as for :func:`exact_p`."""
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    return np.rint(np.bincount(unit, gain)).astype(np.int64)


def count_right(
    tests: Iterable[tuple[Sequence[str], Sequence[str], NDArray[np.bool_]]],
) -> tuple[FloatArray, FloatArray, dict[str, str]]:
    """Return how often each clip was recognised, and tested, over several runs.

    Args:
        tests: For each run its test clips, the unit of each, and whether each was recognised, bool ``(N,)``.

    Returns:
        The two counts, shape ``(M,)`` for M different clips, and the unit of each clip, in the same order.
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
    """Return p-values adjusted for multiple tests.

    Args:
        p_values: The p-values of M tests, each in ``[0, 1]``.

    Returns:
        The adjusted values in the same order. If those below 0.05 are called significant, the probability of even one
        false alarm among all tests is at most 0.05.

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


def interval_of_difference(gain: FloatArray, tested: FloatArray, units: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % interval of the difference between two accuracies on the same clips.

    Args:
        gain: In how many more runs the first model recognises each clip, shape ``(N,)``.
        tested: In how many runs each clip was tested, shape ``(N,)``, at least 1.
        units: The statistical unit of each clip, length N: clips of one unit are not independent.

    Returns:
        ``(low, high)`` around ``sum(gain) / sum(tested)``, within -1 and 1: Student's t times the standard error over
        units. The standard error is computed as if one more unit differed, by the median of the units that do, half of
        it in favour of each model.

        Each unit pulls the difference towards itself, a large unit more so; its residual is enlarged to correct for
        that. Units of uneven size determine the variance only as well as fewer units of equal size would; the degrees
        of freedom account for this.

        If the models differ by the same share in every unit, for example not at all, there is no variance to estimate:
        Wilson's interval for that share and the effective number of units. A single unit says nothing about others:
        ``(-1, 1)``.

    Source:
        Bell and McCaffrey, Survey Methodology 28 (2002), 169-181 (their bias-reduced linearisation, of a mean), Agresti
        and Min, Statistics in Medicine 24 (2005), 729-740 (adding half a unit to each way in which two models can
        differ), and Kish's effective number of units, Survey Sampling (1965).
    """
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    weight, gains = np.bincount(unit, tested), np.bincount(unit, gain)  # (U,)
    part = weight / weight.sum()
    difference = float(gains.sum() / weight.sum())
    if len(part) == 1:
        return -1.0, 1.0
    worth = 1 / float(np.square(part).sum())
    if np.ptp(gains / weight) == 0:
        low, high = wilson(abs(difference), worth)
        return (-high, high) if difference == 0 else (low, high) if difference > 0 else (-high, -low)
    off = part * (gains / weight - difference)  # how much each unit moves the difference
    one_more = float(np.median(np.abs(gains[gains != 0]))) / float(weight.sum())  # where few differ, more may
    error = math.sqrt(float(np.sum(np.square(off) / (1 - part))) + one_more**2)
    reach = float(student.ppf(0.975, max(worth - 1, 1))) * error
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def widened_for_folds(
    interval: tuple[float, float], middle: float, *, folds: int, tested: float, trained: float, least: float = -1.0
) -> tuple[float, float]:
    """Return the interval of a rate that was measured on several folds, with room for the chance of training.

    The clips of a fold share a head, and the heads of all folds share most training clips, so that more differs between
    repetitions of the whole experiment than the test clips show.

    Args:
        interval: The interval over the test clips of all folds, as :func:`interval_of_difference` gives it.
        middle: The measured difference or accuracy, which lies within.
        folds: Number of folds, J; with one the interval stays as it is. More than it takes to test every clip once, as
            of several seeds, count as so many.
        tested: Mean number of test clips of a fold.
        trained: Mean number of the other clips, which are for training and validation.
        least: The smallest possible value: -1 of a difference, 0 of an accuracy.

    Returns:
        The interval, each half ``sqrt(1 + J tested / trained)`` times as long, within ``least`` and 1.

    Example:
        Five folds, each trained on four fifths:

        >>> low, high = widened_for_folds((-0.02, 0.06), 0.02, folds=5, tested=20, trained=80)
        >>> f"{low:.2f}, {high:.2f}"
        '-0.04, 0.08'

    Source:
        Nadeau and Bengio, Inference for the generalization error, Machine Learning 52 (2003), 239-281: the corrected
        resampled t-test.
    """
    if folds == 1:
        return interval
    whole = math.ceil((tested + trained) / tested - 1e-9)  # folds that test every clip once
    factor = math.sqrt(1 + min(folds, whole) * tested / trained)
    low, high = (middle + factor * (end - middle) for end in interval)
    return max(least, low), min(1.0, high)
