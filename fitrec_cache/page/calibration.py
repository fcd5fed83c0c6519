"""How sure a head is, against how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.calibrate import BINS, bin_numbers, calibration_error
from fitrec_cache.calibrate import Calibration as Scaling
from fitrec_cache.page.charts import reliability_svg
from fitrec_cache.page.models import Model
from fitrec_cache.page.pictures import Chart, data_uri
from fitrec_cache.page.records import Record


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """When the answer is "unknown", over all runs; shares in [0, 1], None where it was not tested.

    Attributes:
        thresholds: Lowest and highest of the runs; 0 of a run that gives no such answer.
        false_alarm_rate: Share of validation clips that were to be turned away.
        false_alarms: Share of test clips of known classes that were.
        n: Clips of classes that no run was taught.
        detected: Share of them answered so.
        auroc: How well the highest probability tells them from known ones.
    """

    thresholds: tuple[float, float]
    false_alarm_rate: float
    false_alarms: float | None
    n: int | None
    detected: float | None
    auroc: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far confidence can be trusted, over all runs: of each seed its folds together, then the mean over seeds.

    A bin has ``low``, ``high``, ``n``, ``confidence``, ``accuracy`` and its 95 % interval, ``least`` to ``most``.
    ``temperatures`` are the lowest and the highest of the runs.
    """

    ece: float
    ece_uncalibrated: float
    temperatures: tuple[float, float]
    gap: float
    chart: Chart
    bins: tuple[dict[str, float], ...]
    unknown: Unknown | None


def calibration(model: Model) -> Calibration | None:
    """Return how far a model's confidence can be trusted; None if a run folder does not say."""
    found = [record.metrics.get("calibration") for record in model.records]
    if not all(isinstance(c, dict) for c in found):
        return None
    each: list[dict[str, Any]] = [c for c in found if c]
    bins = _pooled_bins(each)
    numbers = [_numbers(record) for record in model.records]
    n = sum(b["n"] for b in bins)
    for b in bins:
        clips = max(b["n"] / model.times_tested, 1)
        b["least"], b["most"] = model.interval_of(b["accuracy"], clips, numbers, round(b["low"] * BINS))
    points = [(b["confidence"], b["accuracy"], b["least"], b["most"], b["n"] / n) for b in bins]
    gap = sum(b["n"] * (b["confidence"] - b["accuracy"]) for b in bins) / n
    ece, plain = (_error(model, scaled=scaled) for scaled in (True, False))
    temperatures = [float(c["temperature"]) for c in each]
    side = "high" if gap > 0 else "low"
    alt = f"Reliability diagram of {len(bins)} bins: confidence is on average {abs(gap):.1%} too {side}."
    return Calibration(
        ece=ece,
        ece_uncalibrated=plain,
        temperatures=(min(temperatures), max(temperatures)),
        gap=gap,
        chart=Chart(uri=data_uri(reliability_svg(points), "image/svg+xml"), alt=alt),
        bins=tuple(bins),
        unknown=_unknown(model),
    )


def _error(model: Model, *, scaled: bool) -> float:
    """Return the expected calibration error with or without temperatures."""
    return float(np.mean([_error_of(folds, scaled=scaled) for folds in model.by_seed.values()]))


def _error_of(folds: Sequence[Record], *, scaled: bool) -> float:
    """Return the error over the test clips of all folds of a seed; without their answers the mean of the folds'."""
    known = [(r.answers, Scaling(temperature=(r.temperature or 1.0) if scaled else 1.0)) for r in folds]
    found = [(a.targets, scaling.probabilities(a.logits)) for a, scaling in known if a is not None]
    if len(found) == len(folds):
        targets, probabilities = (np.concatenate(each) for each in zip(*found, strict=True))
        return calibration_error(probabilities, targets)[0]
    each = [r.metrics["calibration"]["ece" if scaled else "ece_uncalibrated"] for r in folds]
    return float(np.average(each, weights=[len(r.test) for r in folds]))


def _unknown(model: Model) -> Unknown | None:
    """Return what is known of the answer "unknown"; None if a run folder does not say."""
    each = [(record.metrics.get("unknown"), len(record.test)) for record in model.records]
    found = [(figures, n) for figures, n in each if isinstance(figures, dict) and figures]
    if len(found) < len(each):
        return None
    thresholds = [float(figures["threshold"]) for figures, _ in found]

    def mean(name: str) -> float | None:
        """Each test clip counts the same, however many a fold has."""
        if not all(name in figures for figures, _ in found):
            return None
        return float(np.average([figures[name] for figures, _ in found], weights=[n for _, n in found]))

    n = mean("n")
    return Unknown(
        thresholds=(min(thresholds), max(thresholds)),
        false_alarm_rate=float(found[0][0]["false_alarm_rate"]),
        false_alarms=mean("false_alarms"),
        n=None if n is None else round(n),
        detected=mean("detected"),
        auroc=mean("auroc"),
    )


def _numbers(record: Record) -> NDArray[np.int64]:
    """Return the bin of each test clip of a run; of a run without answers none."""
    if record.answers is None:
        return np.empty(0, dtype=np.int64)
    return bin_numbers(Scaling(temperature=record.temperature or 1.0).probabilities(record.answers.logits).max(axis=1))


def _pooled_bins(each: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Add up the bins of all runs; bins without clips are left out."""
    pooled: dict[float, dict[str, float]] = {}
    for b in (b for c in each for b in c["bins"] if b["n"]):
        into = pooled.setdefault(b["low"], {"low": b["low"], "high": b["high"], "n": 0, "confidence": 0, "accuracy": 0})
        into["n"] += b["n"]
        into["confidence"] += b["n"] * b["confidence"]
        into["accuracy"] += b["n"] * b["accuracy"]
    return [
        {**b, "confidence": b["confidence"] / b["n"], "accuracy": b["accuracy"] / b["n"]}
        for _, b in sorted(pooled.items())
    ]
