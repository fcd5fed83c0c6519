"""Metrics of a trained head, computed from arrays, each with the number of clips behind it."""

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
    """Metrics of one test set; every rate is in ``[0, 1]``.

    Averages are over the classes that occur in the test set: ``_macro`` gives each of them the same weight,
    ``_weighted`` its number of test clips. Predicting a class that no test clip has still lowers the recall.

    Attributes:
        n: Number of test clips.
        accuracy: Share of clips whose most probable class is the right one.
        accuracy_ci95: 95 % interval of the accuracy, ``(low, high)``: Wilson's; if clips share a recording, for their
            effective number of independent clips, see :func:`interval_by_unit`.
        top5_accuracy: Share of clips with the right class among the ``min(5, K)`` most probable; 1.0 where K <= 5.
        precision_weighted: Precision weighted by class support.
        recall_weighted: Recall weighted by class support; equals the accuracy.
        f1_weighted: F1 weighted by class support.
        precision_macro: Unweighted mean precision.
        recall_macro: Unweighted mean recall.
        f1_macro: Unweighted mean F1.
        per_class: One dict per class in label order: ``label``, ``n``, ``precision``, ``recall``, ``f1``. A value whose
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
        """The accuracy of always answering the most frequent class of the test clips."""
        return float(self.confusion.sum(axis=1).max() / self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics, with :attr:`guessing`, as plain lists and numbers that ``json`` can write."""
        lists = {"accuracy_ci95": list(self.accuracy_ci95), "per_class": list(self.per_class)}
        return vars(self) | lists | {"confusion": self.confusion.tolist(), "guessing": self.guessing}


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share, which may be a fraction of clips, such as a mean over seeds.

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
    """Return the 95 % interval of an accuracy when clips of one recording are not independent.

    Args:
        right: How often each clip was recognised, shape ``(N,)``.
        tested: How often it was tested, shape ``(N,)``, at least 1.
        units: The statistical unit of each clip, length N; see :func:`fitrec_cache.dataset.units.units_of`.

    Returns:
        ``(low, high)``: Wilson's interval for the effective number of clips, that is, the number of independent clips
        whose accuracy would have the same variance; at most N.

        Each unit pulls the accuracy towards itself, a large unit more so; its residual is enlarged to correct for that.
        The variance itself is estimated from few units, effectively even fewer if some are far larger than others.
        Student's t accounts for this: its degrees of freedom follow from the effective number of units.

        If all answers are right or all are wrong, there is no variance to estimate: Wilson's interval for the effective
        number of units, as also if every clip is a unit of its own. A single unit says nothing about others:
        ``(0, 1)``.

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
    """Compare the outputs of a head with the true classes.

    Equal logits are ranked in label order, for accuracy and top-5 accuracy alike.

    Args:
        logits: Scores or probabilities, shape ``(N, K)``, float, higher = more likely.
        labels: True class numbers, shape ``(N,)``, integers in ``[0, K)``.
        class_names: The K class names in label order.
        units: The statistical unit of each clip, length N, because clips of one recording are not independent; the
            interval of the accuracy takes this into account. None: each clip is a unit.

    Returns:
        The metrics.

    Raises:
        ValueError: If shapes disagree, there is no clip, a logit is not finite or a label is out of range.

    Example:
        >>> figures = evaluate([[2.0, 0.0], [0.5, 1.0], [3.0, 1.0]], [0, 1, 1], ["Lunge", "Squat"])
        >>> figures.n, round(figures.accuracy, 3), figures.confusion.tolist()
        (3, 0.667, [[1, 0], [1, 1]])
    """
    scores, truth = _checked(np.asarray(logits, dtype=np.float64), np.asarray(labels), len(class_names))
    ranked = np.argsort(-scores, axis=1, kind="stable")  # (N, K), best first
    hits = ranked == truth[:, None]  # (N, K), one True per row
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
    """Return the two arrays after checking them; raise ValueError with what is wrong."""
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
    """Return precision, recall and F1, averaged over the classes that occur among the true ones."""
    present = np.unique(truth)
    figures = precision_recall_fscore_support(truth, guesses, labels=present, average=kind, zero_division=0)
    return float(figures[0]), float(figures[1]), float(figures[2])


def _per_class(
    truth: NDArray[np.int64], guesses: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    """Return one row of metrics per class, including classes without a test clip."""
    columns = precision_recall_fscore_support(truth, guesses, labels=range(len(class_names)), zero_division=0)
    rows = zip(class_names, *(column.tolist() for column in columns), strict=True)
    return tuple(
        {"label": label, "n": int(n), "precision": precision, "recall": recall, "f1": f1}
        for label, precision, recall, f1, n in rows
    )


def stratified_folds(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> list[NDArray[np.int64]]:
    """Divide clips into folds of about the same size and mix of classes, with no group in two folds.

    Args:
        labels: Class of each clip, length N.
        groups: Group of each clip, length N; a group stays together.
        folds: Number of folds, at least 2.
        seed: Seed of the order in which groups are placed.

    Returns:
        The clips of each fold, ascending.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # small classes are spread as well as possible
        state = seed % 2**32  # scikit-learn takes only 32 bits
        divide = StratifiedGroupKFold(folds, shuffle=True, random_state=state).split(labels, labels, groups)
        return [np.sort(test).astype(np.int64) for _, test in divide]
