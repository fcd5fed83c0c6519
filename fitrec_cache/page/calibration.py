"""How sure a head is, against how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.calibrate import BINS, bin_numbers
from fitrec_cache.calibrate import Calibration as Scaling
from fitrec_cache.page.charts import reliability_svg
from fitrec_cache.page.models import Model
from fitrec_cache.page.pictures import Chart, data_uri
from fitrec_cache.page.records import Record


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far confidence can be trusted; means over runs.

    A bin has ``low``, ``high``, ``n``, ``confidence``, ``accuracy`` and its 95 % interval, ``least`` to ``most``.
    """

    ece: float
    ece_uncalibrated: float
    temperature: float
    gap: float
    chart: Chart
    bins: tuple[dict[str, float], ...]
    unknown: dict[str, float] | None


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
    ece = float(np.mean([c["ece"] for c in each]))
    side = "high" if gap > 0 else "low"
    alt = f"Reliability diagram of {len(bins)} bins: confidence is on average {abs(gap):.1%} too {side}."
    return Calibration(
        ece=ece,
        ece_uncalibrated=float(np.mean([c["ece_uncalibrated"] for c in each])),
        temperature=float(np.mean([c["temperature"] for c in each])),
        gap=gap,
        chart=Chart(uri=data_uri(reliability_svg(points), "image/svg+xml"), alt=alt),
        bins=tuple(bins),
        unknown=_mean_unknown([record.metrics.get("unknown") for record in model.records]),
    )


def _mean_unknown(each: Sequence[Any]) -> dict[str, float] | None:
    """Return the mean of each figure about the answer "unknown" over the runs; None if a run has none."""
    if not all(isinstance(figures, dict) for figures in each):
        return None
    return {name: float(np.mean([figures[name] for figures in each])) for name in each[0]}


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
