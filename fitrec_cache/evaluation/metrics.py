"""What a trained head is worth: figures on arrays, each with the number of clips behind it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.model_selection import StratifiedGroupKFold

from fitrec_cache.wording import NO_BOUNDS

#: Standard normal quantile of a two-sided 95 % interval.
_Z = 1.959963984540054


@dataclass(frozen=True, kw_only=True, eq=False)
class Metrics:
    """Figures of one test set; every rate is in ``[0, 1]``.

    Averages run over the classes that occur in the test set: ``_macro`` gives each of them the same weight,
    ``_weighted`` its number of test clips. A predicted class that no test clip has still costs recall.

    Attributes:
        n: Number of test clips.
        accuracy: Share of clips whose most probable class is the right one.
        accuracy_ci95: 95 % interval of the accuracy, ``(low, high)``: Wilson's; where clips share a recording, for the
            number of independent clips that they are worth, see :func:`interval_by_unit`.
        top5_accuracy: Share of clips with the right class among the ``min(5, K)`` most probable; 1.0 where K <= 5.
        precision_weighted: Precision weighted by class support.
        recall_weighted: Recall weighted by class support; equals the accuracy.
        f1_weighted: F1 weighted by class support.
        precision_macro: Unweighted mean precision.
        recall_macro: Unweighted mean recall.
        f1_macro: Unweighted mean F1.
        per_class: One dict a class in label order: ``label``, ``n``, ``precision``, ``recall``, ``f1``. A figure whose
            denominator is zero is 0.
        confusion: Clip counts, shape ``(K, K)``, int64; row = true class, column = predicted class.
    """

    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    top5_accuracy: float
    precision_weighted: float
    recall_weighted: float
    f1_weighted: float
    precision_macro: float
    recall_macro: float
    f1_macro: float
    per_class: tuple[dict[str, Any], ...] = field(repr=False)
    confusion: NDArray[np.int64] = field(repr=False)

    @property
    def guessing(self) -> float:
        """The accuracy of always naming the class that most of the test clips have."""
        return float(self.confusion.sum(axis=1).max() / self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain lists and numbers that ``json`` can write, under the attribute names."""
        lists = {"accuracy_ci95": list(self.accuracy_ci95), "per_class": list(self.per_class)}
        return vars(self) | lists | {"confusion": self.confusion.tolist()}


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share that need not be of whole clips, such as a mean over seeds.

    Args:
        share: In ``[0, 1]``.
        n: Number of distinct clips, or units, behind it, above 0.

    Returns:
        ``(low, high)``, both in ``[0, 1]``.

    Raises:
        ValueError: If the share or the number is out of range.

    Example:
        >>> low, high = wilson(631 / 676, 676)
        >>> print(f"{low:.3f} to {high:.3f}")
        0.912 to 0.950

    Source:
        Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if not (0 <= share <= 1 and n > 0):
        raise ValueError(f"got a share of {share} of {n} clips: expected a share from 0 to 1, and more than 0 clips")
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def interval_by_unit(
    right: NDArray[np.float64], tested: NDArray[np.float64], units: Sequence[str]
) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy where clips of one recording are not independent.

    Args:
        right: How often each clip was recognised, shape ``(N,)``.
        tested: How often it was tested, shape ``(N,)``, at least 1.
        units: What each clip belongs to, length N; see :func:`fitrec_cache.dataset.units.units_of`.

    Returns:
        ``(low, high)``: Wilson's for the number of independent clips that would scatter as these do, at most as many as
        there are. A unit pulls the accuracy towards itself, a large one more, for which its residual is enlarged. That
        scatter is itself known from few units only, fewer still where some are far larger than others, which Student's
        t minds: for its degrees of freedom units count as many as units of one size would be worth.
        Where all is right or all wrong nothing scatters: Wilson's for so many units, as where every clip is a unit of
        its own. One unit says nothing of others: ``(0, 1)``.

    Source:
        Korn and Graubard, Survey Methodology 24 (1998), 193-201, with Wilson's interval for Clopper and Pearson's, Bell
        and McCaffrey, Survey Methodology 28 (2002), 169-181 (the enlarged residuals), and Kish's effective number of
        units, Survey Sampling (1965).
    """
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    weight, hits = np.bincount(unit, tested), np.bincount(unit, right)  # (U,)
    share, worth = float(hits.sum() / weight.sum()), float(weight.sum() ** 2 / np.square(weight).sum())
    if len(weight) == 1:
        return NO_BOUNDS
    if share in (0, 1) or len(weight) == len(units):
        return wilson(share, worth)
    part = weight / weight.sum()
    scatter = float(np.sum(np.square(part * (hits / weight - share)) / (1 - part)))
    alike = share * (1 - share) / scatter if scatter > 0 else math.inf
    return wilson(share, min(alike, len(units)) * (_Z / float(student.ppf(0.975, max(worth - 1, 1)))) ** 2)


def evaluate(
    logits: ArrayLike, labels: ArrayLike, class_names: Sequence[str], *, units: Sequence[str] | None = None
) -> Metrics:
    """Compare what a head says with what is true.

    Equal logits rank in label order, so that accuracy and top-5 accuracy follow one rule.

    Args:
        logits: Scores or probabilities, shape ``(N, K)``, float, higher = more likely.
        labels: True class numbers, shape ``(N,)``, integers in ``[0, K)``.
        class_names: The K class names in label order.
        units: What each clip belongs to, length N: clips of one recording are not independent, and the interval of the
            accuracy minds that. None: each clip counts for itself.

    Returns:
        The figures.

    Raises:
        ValueError: If shapes disagree, there is no clip, a logit is not finite or a label is out of range.

    Example:
        >>> figures = evaluate([[2.0, 0.0], [0.5, 1.0], [3.0, 1.0]], [0, 1, 1], ["Lunge", "Squat"])
        >>> figures.n, round(figures.accuracy, 3), figures.confusion.tolist()
        (3, 0.667, [[1, 0], [1, 1]])
    """
    scores, truth = _checked(np.asarray(logits, dtype=np.float64), np.asarray(labels), len(class_names))
    ranked = np.argsort(-scores, axis=1, kind="stable")  # (N, K), best first
    hits = ranked == truth[:, None]  # (N, K), one True a row
    guesses, correct, n = ranked[:, 0], int(hits[:, 0].sum()), len(truth)
    belongs = [str(i) for i in range(n)] if units is None else units
    if len(belongs) != n:
        raise ValueError(f"units of {len(belongs)} clips: expected one for each of {n}")
    averages = {kind: _averages(truth, guesses, kind) for kind in ("weighted", "macro")}
    return Metrics(
        n=n,
        accuracy=correct / n,
        accuracy_ci95=interval_by_unit(hits[:, 0].astype(np.float64), np.ones(n), belongs),
        top5_accuracy=float(hits[:, :5].any(axis=1).mean()),
        precision_weighted=averages["weighted"][0],
        recall_weighted=averages["weighted"][1],
        f1_weighted=averages["weighted"][2],
        precision_macro=averages["macro"][0],
        recall_macro=averages["macro"][1],
        f1_macro=averages["macro"][2],
        per_class=_per_class(truth, guesses, class_names),
        confusion=confusion_matrix(truth, guesses, labels=range(len(class_names))).astype(np.int64),
    )


def _checked(
    scores: NDArray[np.float64], truth: NDArray[Any], n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the two arrays, or say what does not fit."""
    if scores.ndim != 2 or scores.shape[1] != n_classes or not n_classes:
        raise ValueError(f"logits have shape {scores.shape}: expected (N, {n_classes}), one column per class name")
    if truth.shape != scores.shape[:1] or not len(truth):
        raise ValueError(f"labels have shape {truth.shape}: expected ({scores.shape[0]},) and at least one clip")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        raise ValueError(f"logits of {bad} of {len(scores)} clips are not finite: the training diverged")
    if not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"labels: got {truth.dtype} such as {truth[0]!r}, expected class numbers")
    if truth.min() < 0 or truth.max() >= n_classes:
        raise ValueError(f"labels: got {truth.min()} to {truth.max()}, expected 0 to {n_classes - 1}")
    return scores, truth.astype(np.int64)


def _averages(truth: NDArray[np.int64], guesses: NDArray[np.int64], kind: str) -> tuple[float, float, float]:
    """Return precision, recall and F1 averaged over the classes that occur in the truth."""
    present = np.unique(truth)
    figures = precision_recall_fscore_support(truth, guesses, labels=present, average=kind, zero_division=0)
    return float(figures[0]), float(figures[1]), float(figures[2])


def _per_class(
    truth: NDArray[np.int64], guesses: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    """Return one row of figures for every class, also those without a test clip."""
    columns = precision_recall_fscore_support(truth, guesses, labels=range(len(class_names)), zero_division=0)
    rows = zip(class_names, *(column.tolist() for column in columns), strict=True)
    return tuple(
        {"label": label, "n": int(n), "precision": precision, "recall": recall, "f1": f1}
        for label, precision, recall, f1, n in rows
    )


def stratified_folds(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> list[NDArray[np.int64]]:
    """Divide clips into folds of about the same size and mix of classes, no group in two.

    Args:
        labels: Class of each clip, length N.
        groups: What each clip stays together with, length N.
        folds: Number of folds, at least 2.
        seed: Of the order in which groups are placed.

    Returns:
        The clips of each fold, ascending.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # a class of few clips is spread as it can be
        state = seed % 2**32  # more bits than scikit-learn takes
        divide = StratifiedGroupKFold(folds, shuffle=True, random_state=state).split(labels, labels, groups)
        return [np.sort(test).astype(np.int64) for _, test in divide]
