"""Probabilities that mean what they say, and when to answer "unknown". Fitted on validation clips only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import mannwhitneyu

from fitrec_cache.common.files import Plain
from fitrec_cache.wording import between

#: Bins of equal width between 0 and 1, as in the paper that made the figure common.
BINS = 15

#: Share of clips of known classes that the threshold for "unknown" turns away, if nothing else is said.
FALSE_ALARM_RATE = 0.05

#: Temperatures that are tried; the hottest makes nearly all answers even.
_COLDEST, _HOTTEST = 0.1, 100.0
_FLAT = 1e-9

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Calibration(Plain):
    """What makes probabilities of logits.

    Attributes:
        temperature: Divides the logits; above 1 where the head is too sure of itself.
        threshold: Below this highest probability the answer is "unknown"; in [0, 1]. 0: nothing is.
        false_alarm_rate: Share of clips of known classes that the threshold may turn away.
    """

    temperature: float = 1.0
    threshold: float = 0.0
    false_alarm_rate: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges; files of others may hold anything.

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
        units: What each clip belongs to, length N: clips of one recording are alike. None: each counts for itself.
        false_alarm_rate: Share of clips of known classes that may be answered "unknown", in [0, 1).

    Returns:
        The temperature from 0.1 to 100 that makes the cross-entropy lowest, and the threshold for that share. Where all
        N are right, any lower temperature would be better still: then half a clip more is counted, which is answered as
        the others are on average and is of any class alike. Of N validation clips and one more of the same kind, each
        is as likely to be the k-th least sure of all, so the k-th least sure of N has a new one below it with
        probability k / (N + 1): k is the largest that keeps this within the share, and where that is 0 no answer is
        "unknown" (see :func:`remarks`). Of G units and a clip of one more unit the same holds of units: each has the
        weight 1 / (G + 1), shared by its clips.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature scaling). Hendrycks and Gimpel,
        ICLR 2017 (highest probability as a sign of the unknown). Lee, Barber and Willett, "Distribution-free inference
        with hierarchical data", 2023 (the threshold where clips are of units).
    """
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(targets)
    rows = np.arange(len(truth))
    more = 0.5 if (scores.argmax(axis=1) == truth).all() else 0.0

    def loss(log_temperature: float) -> float:
        said = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(said[rows, truth].sum() + more * said.mean()) / (len(truth) + more)

    coldest, hottest = np.log(_COLDEST), np.log(_HOTTEST)
    found = minimize_scalar(loss, bounds=(coldest, hottest), method="bounded")
    temperature = _HOTTEST if loss(hottest) <= found.fun + _FLAT else float(np.exp(found.x))
    threshold = _threshold(softmax(scores / temperature, axis=1).max(axis=1), units, false_alarm_rate)
    return Calibration(temperature=temperature, threshold=threshold, false_alarm_rate=false_alarm_rate)


def _threshold(surest: FloatArray, units: Sequence[str] | None, rate: float) -> float:
    """Return the highest of some probabilities ``(N,)`` that a new clip is below at most at this rate, or 0."""
    names = np.arange(len(surest)) if units is None else np.asarray(units)
    _, unit, sizes = np.unique(names, return_inverse=True, return_counts=True)
    alone = 1 / (len(sizes) + 1)  # the weight of a unit, and of the new one
    order = np.argsort(surest, kind="stable")
    weights = alone / sizes[unit[order]]
    below = alone + weights.cumsum() - weights  # how likely a new clip is below each, least sure first
    within = below <= rate + 1e-9
    return float(surest[order][within].max()) if within.any() else 0.0


def remarks(fitted: Sequence[tuple[Calibration, Sequence[str]]]) -> list[str]:
    """Return what validation clips could not tell, each thing once.

    Args:
        fitted: The calibration of each run of one call, of one rate of false alarms, and the units of the validation
            clips that it was fitted on.
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
        there = f"there {'is' if max(blind) == 1 else 'are'} {between(min(blind), max(blind))}"
        told.append(
            'no video will be answered "unknown", whatever it shows: rejecting only '
            f"{100 * rate:g}% of known clips needs {math.ceil(1 / rate - 1e-9) - 1} {what}, and {there}. Film more, "
            "give `predict --unknown-below 0.6`, or a higher train-head --false-alarm-rate"
            + _of_runs(len(blind), len(fitted))
        )
    return told


def _of_runs(n: int, runs: int) -> str:
    return f" ({n} of {runs} runs)" if runs > 1 else ""


def bin_numbers(confidence: ArrayLike) -> NDArray[np.int64]:
    """Return the bin, from 0 to 14, of each highest probability ``(N,)``; it ranges from its number / 15 on."""
    return np.minimum((np.asarray(confidence) * BINS).astype(np.int64), BINS - 1)


def calibration_error(probabilities: ArrayLike, targets: ArrayLike) -> tuple[float, list[dict[str, Any]]]:
    """Compare how sure the answers are with how often they are right.

    Args:
        probabilities: Float ``(N, K)``, rows summing to 1.
        targets: Class numbers, int ``(N,)``.

    Returns:
        The expected calibration error in [0, 1], and one dict a bin of highest probability that holds a clip: ``low``,
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
    """Return the calibration error that such answers would show by chance if every probability were right.

    It is not zero: in each bin, how many are right scatters, the more the fewer clips there are, and the more of these
    are of one recording, which come out right or wrong together.

    Args:
        probabilities: Float ``(N, K)``, rows summing to 1.
        targets: Class numbers, int ``(N,)``, which show how far clips of one unit come out alike.
        units: What each clip belongs to, length N.

    Returns:
        The mean distance of a normal variable from its mean, by the variance of each bin, in [0, 1]. The variance is
        that of independent clips times Kish's design effect, by how alike clips of one unit come out over all bins.

    Example:
        Two clips in one bin, each right with an even chance:

        >>> round(expected_error([[0.5, 0.5], [0.5, 0.5]], [0, 1], ["a", "b"]), 3)
        0.282

    Source:
        Kish, Survey Sampling (1965), of the design effect.
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
    """Return how alike clips of one unit in one bin come out, in [0, 1], from all bins with several units.

    Args:
        off: Right or wrong less the confidence, of each clip ``(N,)``.
        where: Its bin ``(N,)``.
        cell: The pair of unit and bin that it is in, ``(N,)``.
        bin_of: The bin of each pair, ``(C,)``.

    Returns:
        The intraclass correlation by the variances between and within pairs of a bin; 1 where it cannot be told.

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
    """Return how well a score tells known from unknown: the share of pairs in which the known one is higher.

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
