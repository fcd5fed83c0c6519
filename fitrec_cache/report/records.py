"""Run folders as the page needs them: metrics and settings, no weights."""

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
from fitrec_cache.runs.run_files import contents_of, find_runs, read_run_json, refused_if_damaged
from fitrec_cache.runs.scored import ScoredRun, read_scored


@dataclass(frozen=True, kw_only=True, eq=False)
class Record(ScoredRun):
    """One run folder with its metrics.

    Attributes:
        metrics: The content of ``metrics.json``, used for what only it has: training history, seconds, parameters, and
            the figures about the answer "unknown".
    """

    metrics: Mapping[str, Any]

    @property
    def rule(self) -> str:
        """The split rule as it was given."""
        return str(self.run_json["split"]["rule"])

    @property
    def sources(self) -> list[Mapping[str, Any]]:
        """How its features, or frames, were made; empty for features that were made elsewhere."""
        sources: list[Mapping[str, Any]] = self.run_json["sources"]
        return sources

    @property
    def contents(self) -> Mapping[str, str]:
        """Content identifiers of its clips' videos; see :func:`fitrec_cache.runs.run_files.contents_of`. Not cached."""
        return contents_of(self.run_json)

    @property
    def best(self) -> Mapping[str, float]:
        """The epoch whose weights were kept."""
        number = self.metrics["best_epoch"]
        return next(row for row in self.metrics["history"] if row["epoch"] == number)

    @cached_property
    def calibration(self) -> Calibration:
        """How its logits are turned into probabilities and answers."""
        return Calibration.of(self.run_json)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probabilities of the test clips, ``(n, K)``."""
        return self.calibration.probabilities(self.tested.logits)

    @property
    def sharing(self) -> int:
        """Number of test clips whose group also has clips in training or validation."""
        return int(self.run_json["split"]["sharing"])

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on its split; for folds only problems, because a fold usually lacks some classes in testing."""
        split = self.run_json["split"]
        notes = [str(note) for note in split["notes"] if not self.fold]
        notes += say_untrained([str(label) for label in split["untrained"]])
        if self.sharing:
            notes.append(f"leaks: {self.sharing} of {len(self.clips)} test clips share a group with a training clip")
        return tuple(notes)


def read_records(paths: Sequence[Path]) -> list[Record]:
    """Read run folders, and all run folders below folders that hold several.

    Returns:
        Each run once, in the order given; those of one folder sorted by name.

    Raises:
        UsageError: If a path contains no run.
        StoreCorrupt: If a file is damaged.
        FitrecError: If a run was written by another program version.
    """
    return [_record(folder) for folder in find_runs(paths)]


def _record(folder: Path) -> Record:
    scored, metrics = read_scored(folder), read_run_json(folder / "metrics.json")
    with refused_if_damaged(folder):
        record = Record(
            folder=folder, run_json=scored.run_json, validated=scored.validated, tested=scored.tested, metrics=metrics
        )
        _check(record)
        return record


def _check(record: Record) -> None:
    """Evaluate every value that the page requires, so that a damaged folder is reported by its name."""
    m, run = record.metrics, record.run_json
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
    _ = (run["threads"], float(run["false_alarm_rate"]), record.calibration)  # raises if a value is out of range
    tested = ("n", "detected", "auroc") if "auroc" in m["unknown"] else ()
    for name in ("false_alarms", *tested):
        float(m["unknown"][name])
