"""Run folders as the page needs them: figures and settings, no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.calibrate import Calibration
from fitrec_cache.errors import StoreCorrupt
from fitrec_cache.run_files import find_runs, read_run_json
from fitrec_cache.scored import ScoredRun, read_scored

#: What the figures of a damaged run folder raise.
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, StopIteration)


@dataclass(frozen=True, kw_only=True, eq=False)
class Record(ScoredRun):
    """One run folder with its figures.

    Attributes:
        metrics: ``metrics.json``.
        confusion: Clip counts ``(K, K)``, int64; row = true class.
    """

    metrics: Mapping[str, Any]
    confusion: NDArray[np.int64]

    @property
    def rule(self) -> str:
        """The rule of the split as it was given."""
        return str(self.metrics["split"])

    @property
    def best(self) -> Mapping[str, float]:
        """The epoch whose weights were kept."""
        number = self.metrics["best_epoch"]
        return next(row for row in self.metrics["history"] if row["epoch"] == number)

    @property
    def temperature(self) -> float:
        """What its logits are divided by."""
        return float(self.metrics["calibration"]["temperature"])

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probabilities of the test clips, ``(n, K)``."""
        return Calibration(temperature=self.temperature).probabilities(self.tested.logits)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the split said of itself."""
        return tuple(str(n) for n in self.run["split"].get("notes", ()))


def read_records(paths: Sequence[Path]) -> list[Record]:
    """Read run folders, and all run folders below folders that hold several.

    Returns:
        Each run once, in the order given, those of one folder by name.

    Raises:
        UsageError: If there is none at a path.
        StoreCorrupt: If a file is damaged.
        FitrecError: If a run is of another version.
    """
    return [_record(folder) for folder in find_runs(paths)]


def _record(folder: Path) -> Record:
    scored, metrics = read_scored(folder), read_run_json(folder / "metrics.json")
    try:
        confusion = _confusion(metrics["confusion"], len(scored.labels), len(scored.clips))
        record = Record(
            folder=folder,
            run=scored.run,
            validated=scored.validated,
            tested=scored.tested,
            metrics=metrics,
            confusion=confusion,
        )
        _check(record)
    except _DAMAGE as error:
        raise StoreCorrupt(f"{folder} is damaged ({error!r}): train the head again") from error
    return record


def _check(record: Record) -> None:
    """Touch every figure that the page cannot do without, so that a damaged folder is named."""
    m = record.metrics
    for name in ("top5_accuracy", "seconds", "parameters", "epochs", "n_train", "n_val", "n_test"):
        float(m[name])
    for row in m["history"]:
        for name in ("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            float(row[name])
    _ = (record.best["val_loss"], record.notes)
    _ = (dict(record.run["training"]), dict(record.run["head"]), dict(record.run["versions"]))
    tested = ("n", "detected", "auroc") if "auroc" in m["unknown"] else ()
    for name in ("threshold", "false_alarm_rate", "false_alarms", *tested):
        float(m["unknown"][name])
    Calibration(temperature=record.temperature)  # raises where that is none
    if not record.clips or int(m["n_test"]) != len(record.clips):
        raise ValueError(f"{m['n_test']} test clips in metrics.json, {len(record.clips)} in run.json")


def _confusion(rows: Any, k: int, n: int) -> NDArray[np.int64]:
    confusion = np.array(rows, dtype=np.int64)
    if confusion.shape != (k, k) or confusion.min() < 0 or confusion.sum() != n:
        raise ValueError(f"confusion {confusion.shape} of {confusion.sum()} clips, expected ({k}, {k}) of {n}")
    return confusion
