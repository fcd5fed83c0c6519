"""Run folders as the page needs them: figures and settings, no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.dataset.splits import say_untrained
from fitrec_cache.evaluation.calibration import Calibration
from fitrec_cache.runs.run import calibration_of
from fitrec_cache.runs.run_files import contents_of, find_runs, read_run_json, refused_if_damaged
from fitrec_cache.runs.scored import ScoredRun, read_scored


@dataclass(frozen=True, kw_only=True, eq=False)
class Record(ScoredRun):
    """One run folder with its figures.

    Attributes:
        metrics: ``metrics.json``, for what only it has: the course of training, seconds, parameters, and how the answer
            "unknown" did.
    """

    metrics: Mapping[str, Any]

    @property
    def rule(self) -> str:
        """The rule of the split as it was given."""
        return str(self.run["split"]["rule"])

    @property
    def sources(self) -> list[Mapping[str, Any]]:
        """What its features, or frames, were made of and how; none of those that were made elsewhere."""
        sources: list[Mapping[str, Any]] = self.run["sources"]
        return sources

    @property
    def contents(self) -> Mapping[str, str]:
        """What the videos of its clips were known by; see :func:`fitrec_cache.runs.run_files.contents_of`. Not kept."""
        return contents_of(self.run)

    @property
    def best(self) -> Mapping[str, float]:
        """The epoch whose weights were kept."""
        number = self.metrics["best_epoch"]
        return next(row for row in self.metrics["history"] if row["epoch"] == number)

    @cached_property
    def calibration(self) -> Calibration:
        """What makes probabilities of its logits, and "unknown" of some."""
        return calibration_of(self.run)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probabilities of the test clips, ``(n, K)``."""
        return self.calibration.probabilities(self.tested.logits)

    @property
    def sharing(self) -> int:
        """How many test clips are of a group that training or validation has clips of."""
        return int(self.run["split"]["sharing"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to know of its split; of folds only what is wrong: each lacks some classes to test."""
        split = self.run["split"]
        notes = [str(note) for note in split["notes"] if not self.fold]
        notes += say_untrained([str(label) for label in split["untrained"]])
        if self.sharing:
            notes.append(f"leaks: {self.sharing} of {len(self.clips)} test clips share a group with a training clip")
        return tuple(notes)


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
    with refused_if_damaged(folder):
        record = Record(
            folder=folder, run=scored.run, validated=scored.validated, tested=scored.tested, metrics=metrics
        )
        _check(record)
        return record


def _check(record: Record) -> None:
    """Touch every figure that the page cannot do without, so that a damaged folder is named."""
    m, run = record.metrics, record.run
    for name in ("seconds", "parameters"):
        float(m[name])
    for row in m["history"]:
        for name in ("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            float(row[name])
    _ = (record.best["val_loss"], record.notes, record.contents)
    _ = (run["training"]["device"], dict(run["head"]), [len(run["split"][side]) for side in SIDES])
    _ = (run["training"].items(), run["versions"].items())
    for name in ("temperature", "threshold", "false_alarm_rate"):
        float(run["calibration"][name])
    _ = (run["threads"], float(run["false_alarm_rate"]), record.calibration)  # raises where a value is out of range
    tested = ("n", "detected", "auroc") if "auroc" in m["unknown"] else ()
    for name in ("false_alarms", *tested):
        float(m["unknown"][name])
