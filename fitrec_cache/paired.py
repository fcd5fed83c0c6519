"""Statistics of two models on the same clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
"""Bootstrap samples."""

FloatArray = NDArray[np.float64]

_AT_ONCE = 500  # bootstrap samples in memory at a time


def exact_mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of the exact McNemar test: are clips that one alone has right evenly shared?

    Args:
        only_a: Clips that A has right and B wrong, not negative.
        only_b: Clips that B has right and A wrong, not negative.

    Returns:
        The probability of so uneven a share or a more uneven one if both were equally good; 1 without such clips.

    Example:
        >>> exact_mcnemar(1, 8)
        0.0390625

    Source:
        McNemar, Psychometrika 12 (1947), 153-157, with the binomial distribution in place of its approximation.
    """
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


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


def bootstrap_interval(
    total: FloatArray, weight: FloatArray, units: Sequence[str], *, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a ratio, where whole units are drawn again with replacement.

    Args:
        total: What each clip adds to the numerator, shape ``(N,)``.
        weight: What each clip adds to the denominator, shape ``(N,)``, positive.
        units: What each clip belongs to and is drawn with, length N: its group, or its own id.
        seed: Of the draws.

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
    rng = np.random.default_rng(seed)
    ratios = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        size = min(_AT_ONCE, RESAMPLES - start)
        drawn = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=size) @ sums  # (size, 2)
        ratios.append(drawn[:, 0] / drawn[:, 1])
    low, high = np.quantile(np.concatenate(ratios), (0.025, 0.975))
    return float(low), float(high)
