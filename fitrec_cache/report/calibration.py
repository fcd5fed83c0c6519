"""How confident a head is compared with how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fitrec_cache.evaluation.calibration import BINS, Calibration, bin_numbers, calibration_error, expected_error
from fitrec_cache.report.charts import reliability_svg
from fitrec_cache.report.models import Model
from fitrec_cache.report.pictures import Chart, data_uri
from fitrec_cache.report.records import Record
from fitrec_cache.wording import plural


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Figures about the answer "unknown" over all runs; shares in [0, 1], None if not tested.

    Attributes:
        thresholds: Lowest and highest threshold of the runs; 0 for a run that never answers "unknown".
        false_alarm_rate: Share of clips of new recordings that may be rejected.
        false_alarms: Share of test clips of known classes that were rejected.
        n: Number of clips of held-out classes.
        detected: Share of these that were answered "unknown".
        auroc: How well the highest probability separates them from clips of known classes.
    """

    thresholds: tuple[float, float]
    false_alarm_rate: float
    false_alarms: float
    n: int | None
    detected: float | None
    auroc: float | None


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How reliable confidence is, over all runs: computed per seed over its folds, then averaged over seeds.

    A bin has ``low``, ``high``, ``n``, ``confidence``, ``accuracy`` and its 95 % interval, ``least`` to ``most``.
    ``temperatures`` are the lowest and the highest of the runs; ``ece_expected`` is the error that would be expected by
    chance if all confidence were right.
    """

    ece: float
    ece_expected: float
    ece_uncalibrated: float
    temperatures: tuple[float, float]
    gap: float
    chart: Chart
    bins: tuple[dict[str, float], ...]
    unknown: Unknown


def calibration(model: Model) -> Confidence:
    """Return how reliable a model's confidence is."""
    targets = np.concatenate([record.tested.targets for record in model.runs])
    _, bins = calibration_error(np.concatenate([record.probabilities for record in model.runs]), targets)
    numbers = [bin_numbers(record.probabilities.max(axis=1)) for record in model.runs]
    for b in bins:
        b["least"], b["most"] = model.interval_of(numbers, round(b["low"] * BINS))
    n = len(targets)
    points = [(b["confidence"], b["accuracy"], b["least"], b["most"], b["n"] / n) for b in bins]
    gap = sum(b["n"] * (b["confidence"] - b["accuracy"]) for b in bins) / n
    errors = zip(*map(_errors, model.by_seed.values()), strict=True)
    ece, by_chance, uncalibrated = (float(np.mean(of_seeds)) for of_seeds in errors)
    temperatures = [run.calibration.temperature for run in model.runs]
    side = "high" if gap > 0 else "low"
    alt = f"Reliability diagram of {plural(len(bins), 'bin')}: confidence is on average {abs(gap):.1%} too {side}."
    return Confidence(
        ece=ece,
        ece_expected=by_chance,
        ece_uncalibrated=uncalibrated,
        temperatures=(min(temperatures), max(temperatures)),
        gap=gap,
        chart=Chart(uri=data_uri(reliability_svg(points), "image/svg+xml"), alt=alt),
        bins=tuple(bins),
        unknown=_unknown(model),
    )


def _errors(folds: Sequence[Record]) -> tuple[float, float, float]:
    """Return the calibration error over the folds of a seed, the one expected by chance, and the uncalibrated one."""
    units = [unit for record in folds for unit in record.units]
    targets = np.concatenate([record.tested.targets for record in folds])
    said = np.concatenate([record.probabilities for record in folds])
    plain = np.concatenate([Calibration().probabilities(record.tested.logits) for record in folds])
    (ece, _), (uncalibrated, _) = calibration_error(said, targets), calibration_error(plain, targets)
    return ece, expected_error(said, targets, units), uncalibrated


def _unknown(model: Model) -> Unknown:
    """Return the figures about the answer "unknown"."""
    figures = [run.metrics["unknown"] for run in model.runs]
    thresholds = [run.calibration.threshold for run in model.runs]
    tested = all("auroc" in each for each in figures)

    def mean(name: str) -> float:
        """Average over runs, weighted by their number of test clips."""
        return float(np.average([each[name] for each in figures], weights=[len(run.clips) for run in model.runs]))

    return Unknown(
        thresholds=(min(thresholds), max(thresholds)),
        false_alarm_rate=model.first.calibration.false_alarm_rate,
        false_alarms=mean("false_alarms"),
        n=round(mean("n")) if tested else None,
        detected=mean("detected") if tested else None,
        auroc=mean("auroc") if tested else None,
    )
