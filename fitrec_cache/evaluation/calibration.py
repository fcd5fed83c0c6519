"""Calibrate probabilities, and choose the threshold below which the answer is "unknown"; on validation clips only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import mannwhitneyu

from fitrec_cache.common.files import Plain
from fitrec_cache.wording import between

#: Number of bins of equal width between 0 and 1, as in the paper that made this diagram common.
BINS = 15

#: Default share of clips of known classes that the threshold for "unknown" may reject.
FALSE_ALARM_RATE = 0.05

#: The range of temperatures that are tried; the highest makes nearly all probabilities equal.
_COLDEST, _HOTTEST = 0.1, 100.0
_FLAT = 1e-9

#: Standard deviation of the logarithm of temperatures below 1 that is expected before a clip was seen.
_SHARPENED = 0.5

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Calibration(Plain):
    """How logits are turned into probabilities and an answer.

    Attributes:
        temperature: The logits are divided by it; above 1 if the head is overconfident.
        threshold: The answer is "unknown" if the highest probability is below it; in [0, 1]. 0: never.
        false_alarm_rate: Share of clips of known classes that the threshold may reject.
    """

    temperature: float = 1.0
    threshold: float = 0.0
    false_alarm_rate: float = 0.0

    @classmethod
    def of(cls, run_json: Mapping[str, Any]) -> Calibration:
        """Return the calibration that ``run.json`` holds.

        Raises:
            KeyError: If it has none.
            ValueError: If it is out of range.
        """
        return cls(**{name: float(value) for name, value in run_json["calibration"].items()})

    def __post_init__(self) -> None:
        """Check the ranges, because the values may come from a file of any origin.

        Raises:
            ValueError: If a value is out of range.
        """
        if not (0 < self.temperature < math.inf and 0 <= self.threshold <= 1 and 0 <= self.false_alarm_rate < 1):
            raise ValueError(f"{self}: expected a temperature above 0, a threshold in [0, 1] and a rate in [0, 1)")

    def probabilities(self, logits: ArrayLike) -> FloatArray:
        """Return calibrated probabilities ``(N, K)`` of logits ``(N, K)``."""
        return np.asarray(softmax(np.asarray(logits, dtype=np.float64) / self.temperature, axis=-1))


def calibrate(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    units: Sequence[str] | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> Calibration:
    """Fit the temperature and the threshold on validation clips.

    Args:
        logits: Float ``(N, K)``, N at least 1.
        targets: Class numbers, int ``(N,)``.
        units: The statistical unit of each clip, length N, because clips of one recording resemble each other. None:
            each clip is a unit.
        false_alarm_rate: Share of clips of known classes that may be answered "unknown", in [0, 1).

    Returns:
        The temperature between 0.1 and 100 with the lowest cross-entropy, and the threshold for that share.

        Few clips are often answered better than new ones will be. So that they do not make answers far surer than the
        head, a temperature t below 1 adds log(t)^2 / (2 0.5^2) to the sum of cross-entropies, as a normal
        prior does. With hundreds of clips that does not matter.

        If all N clips are answered correctly, the cross-entropy would keep falling with the temperature. Half a clip is
        then added, whose output is the average of the others' and whose class may be any with equal probability.

        The threshold: among N validation clips and a new clip of the same kind, each is equally likely to be the k-th
        least confident. So the new clip is below the k-th least confident of the N with probability k / (N + 1). The
        largest k is used for which this is within the share; if that is 0, no answer is "unknown" (see
        :func:`remarks`). The same holds for units: of G units and a clip of a new unit, each unit has the weight
        1 / (G + 1), which its clips share.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature scaling). Hendrycks and Gimpel,
        ICLR 2017 (highest probability as a sign of the unknown). Lee, Barber and Willett, "Distribution-free inference
        with hierarchical data", 2023 (the threshold with units).
    """
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(targets)
    rows = np.arange(len(truth))
    more = 0.5 if (scores.argmax(axis=1) == truth).all() else 0.0

    def loss(log_temperature: float) -> float:
        said = log_softmax(scores / np.exp(log_temperature), axis=1)
        prior = 0.5 * (min(log_temperature, 0.0) / _SHARPENED) ** 2
        return (prior - float(said[rows, truth].sum() + more * said.mean())) / (len(truth) + more)

    coldest, hottest = np.log(_COLDEST), np.log(_HOTTEST)
    found = minimize_scalar(loss, bounds=(coldest, hottest), method="bounded")
    temperature = _HOTTEST if loss(hottest) <= found.fun + _FLAT else float(np.exp(found.x))
    threshold = _threshold(softmax(scores / temperature, axis=1).max(axis=1), units, false_alarm_rate)
    return Calibration(temperature=temperature, threshold=threshold, false_alarm_rate=false_alarm_rate)


def _threshold(surest: FloatArray, units: Sequence[str] | None, rate: float) -> float:
    """Return the highest of the probabilities ``(N,)`` that a new clip is below at no more than this rate, or 0."""
    names = np.arange(len(surest)) if units is None else np.asarray(units)
    _, unit, sizes = np.unique(names, return_inverse=True, return_counts=True)
    alone = 1 / (len(sizes) + 1)  # the weight of each unit, including the new one
    order = np.argsort(surest, kind="stable")
    weights = alone / sizes[unit[order]]
    below = alone + weights.cumsum() - weights  # probability that a new clip is below each; least confident first
    within = below <= rate + 1e-9
    return float(surest[order][within].max()) if within.any() else 0.0


def remarks(fitted: Sequence[tuple[Calibration, Sequence[str]]]) -> list[str]:
    """Return notes on what could not be determined from the validation clips, each note once.

    Args:
        fitted: For each run of one call, its calibration and the units of the validation clips on which it was fitted;
            all with the same false alarm rate.
    """
    rate = fitted[0][0].false_alarm_rate
    hot = [len(units) for found, units in fitted if found.temperature == _HOTTEST]
    unseeing = [units for found, units in fitted if found.threshold == 0.0 and rate > 0]
    blind = [len(set(units)) for units in unseeing]
    told = []
    if hot:
        told.append(
            f"do not rely on probabilities: by {between(min(hot), max(hot))} validation clips the head is far "
            f"overconfident, or no better than a guess (no temperature up to {_HOTTEST:g} is enough)"
            + _of_runs(len(hot), len(fitted))
        )
    if blind:
        grouped = any(len(set(u)) < len(u) for u in unseeing)
        what = "groups of validation clips" if grouped else "validation clips"
        exact = 1 / (min(blind) + 1)  # a threshold can be set at this rate in each run
        tenth = 10.0 ** (math.floor(math.log10(exact)) - 1)
        least = math.ceil(exact / tenth - 1e-9) * tenth  # two digits
        there = f"there {'is' if max(blind) == 1 else 'are'} {between(min(blind), max(blind))}"
        told.append(
            'no video will be answered "unknown", whatever it shows: rejecting only '
            f"{100 * rate:g}% of known clips needs {math.ceil(1 / rate - 1e-9) - 1} {what}, and {there}. Film more, "
            f"train with `train-head --false-alarm-rate {least:g}` or higher, or give `predict --unknown-below P`, "
            "with P chosen from the probabilities in answers.csv" + _of_runs(len(blind), len(fitted))
        )
    return told


def _of_runs(n: int, runs: int) -> str:
    return f" ({n} of {runs} runs)" if runs > 1 else ""


def bin_numbers(confidence: ArrayLike) -> NDArray[np.int64]:
    """Return the bin, 0 to 14, of each highest probability ``(N,)``; bin b begins at b / 15."""
    return np.minimum((np.asarray(confidence) * BINS).astype(np.int64), BINS - 1)


def calibration_error(probabilities: ArrayLike, targets: ArrayLike) -> tuple[float, list[dict[str, Any]]]:
    """Compare the confidence of the answers with their accuracy.

    Args:
        probabilities: Float ``(N, K)``, rows summing to 1.
        targets: Class numbers, int ``(N,)``.

    Returns:
        The expected calibration error in [0, 1], and one dict per non-empty bin of the highest probability: ``low``,
        ``high``, ``n``, mean ``confidence``, ``accuracy``.

    Example:
        >>> error, bins = calibration_error([[0.9, 0.1], [0.9, 0.1]], [0, 1])
        >>> round(error, 2), bins[0]["n"], bins[0]["accuracy"]
        (0.4, 2, 0.5)

    Source:
        Naeini et al., AAAI 2015, with 15 bins of equal width as in Guo et al., ICML 2017.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == np.asarray(targets)
    where = bin_numbers(confidence)
    bins, error = [], 0.0
    for b in np.unique(where).tolist():
        inside = where == b
        mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
        n = int(inside.sum())
        error += n / len(p) * abs(mean - accuracy)
        bins.append({"low": b / BINS, "high": (b + 1) / BINS, "n": n, "confidence": mean, "accuracy": accuracy})
    return error, bins


def expected_error(probabilities: ArrayLike, targets: ArrayLike, units: Sequence[str]) -> float:
    """Return the calibration error that these answers would show by chance if every probability were right.

    It is not zero: the number of correct answers in each bin varies randomly. It varies more the fewer clips there are,
    and the more of them come from one recording, because these tend to be right or wrong together.

    Args:
        probabilities: Float ``(N, K)``, rows summing to 1.
        targets: Class numbers, int ``(N,)``; used to estimate the correlation within units.
        units: The statistical unit of each clip, length N.

    Returns:
        The mean absolute deviation of a normal variable with the variance of each bin, summed over bins, in [0, 1]. The
        variance is that of independent clips times Kish's design effect, for the correlation of clips of one unit.

    Example:
        Two clips in one bin, each right with an even chance:

        >>> round(expected_error([[0.5, 0.5], [0.5, 0.5]], [0, 1], ["a", "b"]), 3)
        0.282

    Source:
        Kish, Survey Sampling (1965), for the design effect.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == np.asarray(targets)
    where = bin_numbers(confidence)
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    cells, cell, sizes = np.unique(unit * BINS + where, return_inverse=True, return_counts=True)  # C pairs
    worth = 1 + _correlation(right - confidence, where, cell, cells % BINS) * (
        np.bincount(cells % BINS, np.square(sizes), BINS) / np.maximum(np.bincount(where, minlength=BINS), 1) - 1
    )
    scatter = np.bincount(where, confidence * (1 - confidence), BINS) * worth  # (15,)
    return float(np.sqrt(2 / np.pi * scatter).sum() / len(confidence))


def _correlation(off: FloatArray, where: IntArray, cell: IntArray, bin_of: IntArray) -> float:
    """Return the correlation of clips of one unit in one bin, in [0, 1], estimated from all bins with several units.

    Args:
        off: Correctness (0 or 1) minus confidence of each clip, ``(N,)``.
        where: The bin of each clip, ``(N,)``.
        cell: The number of the clip's (unit, bin) pair, ``(N,)``.
        bin_of: The bin of each pair, ``(C,)``.

    Returns:
        The intraclass correlation, from the variances between and within the pairs of a bin; 1 if it cannot be
        estimated.

    Source:
        Fisher, Statistical Methods for Research Workers (1925), chapter VII.
    """
    clips, units = np.bincount(where, minlength=BINS), np.bincount(bin_of, minlength=BINS)  # (15,) each
    several = units > 1
    sums, sizes = np.bincount(cell, off), np.bincount(cell)  # (C,) each
    of_pairs = np.bincount(bin_of, np.square(sums) / sizes, BINS)  # (15,)
    of_bins = np.square(np.bincount(where, off, BINS)) / np.maximum(clips, 1)
    between = (of_pairs - of_bins)[several].sum()
    within = (np.bincount(where, np.square(off), BINS) - of_pairs)[several].sum()
    free, left = (units - 1)[several].sum(), (clips - units)[several].sum()
    if not free or not left:
        return 1.0
    usual = (clips - np.bincount(bin_of, np.square(sizes), BINS) / np.maximum(clips, 1))[several].sum() / free
    between, within = between / free, within / left
    whole = between + (usual - 1) * within
    return float(np.clip((between - within) / whole, 0, 1)) if whole > 0 else 1.0


def auroc(known: ArrayLike, unknown: ArrayLike) -> float:
    """Return how well a score separates known from unknown: the share of pairs in which the known clip scores higher.

    Args:
        known: Scores of clips of known classes, at least one.
        unknown: Scores of clips of other classes, at least one.

    Returns:
        In [0, 1]; ties count half (Mann and Whitney's U over the number of pairs).

    Example:
        >>> auroc([0.9, 0.5], [0.5, 0.1])
        0.875
    """
    a, b = np.asarray(known, dtype=np.float64), np.asarray(unknown, dtype=np.float64)
    return float(mannwhitneyu(a, b, method="asymptotic").statistic / (len(a) * len(b)))
