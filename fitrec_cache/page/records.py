"""Run folders as the page needs them: figures and settings, no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fitrec_cache.calibrate import Calibration
from fitrec_cache.errors import StoreCorrupt
from fitrec_cache.one_model import model_settings
from fitrec_cache.run_files import find_runs, read_run_json, read_run_settings
from fitrec_cache.splits import short_rule
from fitrec_cache.units import units_of

#: What reading a damaged run folder raises.
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, StopIteration, OSError, safetensors.SafetensorError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a head said of each test clip.

    Attributes:
        logits: float32 ``(n, K)``.
        targets: int64 ``(n,)``, in ``[0, K)``.
        attention: float32 ``(n, T)``; rows sum to 1.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    attention: NDArray[np.float32]

    @property
    def guesses(self) -> NDArray[np.int64]:
        """The most probable class of each clip, ``(n,)``."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One run folder, read and checked.

    Attributes:
        folder: Where it is.
        run: ``run.json``.
        metrics: ``metrics.json``.
        labels: The K class names.
        confusion: Clip counts ``(K, K)``, int64; row = true class.
        test: Ids of the n test clips.
        answers: What it said of each.
    """

    folder: Path
    run: Mapping[str, Any]
    metrics: Mapping[str, Any]
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    test: tuple[str, ...]
    answers: Answers

    @property
    def variant(self) -> str:
        """Name of the model."""
        return str(self.metrics["variant"])

    @property
    def backbone(self) -> str:
        """Names of the backbones, joined by ``+``."""
        return str(self.metrics["backbone"])

    @property
    def rule(self) -> str:
        """The rule of the split as it was given."""
        return str(self.metrics["split"])

    @property
    def split(self) -> str:
        """The rule of the split; of lists their names, wherever they lie."""
        return short_rule(self.rule)

    @property
    def seed(self) -> int:
        """Seed of split, initial values and batches."""
        return int(self.metrics["seed"])

    @property
    def fold(self) -> str:
        """Which part of a split with several; empty if there is one."""
        return str(self.run.get("fold") or "")

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
        return Calibration(temperature=self.temperature).probabilities(self.answers.logits)

    @cached_property
    def units(self) -> list[str]:
        """What each test clip is drawn with; see :func:`fitrec_cache.units.units_of`."""
        groups = self.run["split"].get("test_groups") or [None] * len(self.test)
        return units_of(self.test, groups, rule=self.rule, fold=self.fold)

    @cached_property
    def settings(self) -> dict[str, str]:
        """What decides its model; see :func:`fitrec_cache.one_model.model_settings`."""
        return model_settings(self.run)

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
    run, metrics = read_run_settings(folder), read_run_json(folder / "metrics.json")
    try:
        labels = tuple(str(label) for label in run["labels"])
        test = tuple(str(clip) for clip in run["split"]["test"])
        record = Record(
            folder=folder,
            run=run,
            metrics=metrics,
            labels=labels,
            confusion=_confusion(metrics["confusion"], len(labels), len(test)),
            test=test,
            answers=_answers(folder / "logits.safetensors", len(test), len(labels)),
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
    _ = (record.variant, record.backbone, record.split, record.seed, record.best["val_loss"], record.notes)
    _ = record.settings
    _ = (dict(record.run["training"]), dict(record.run["head"]), dict(record.run["versions"]))
    tested = ("n", "detected", "auroc") if "auroc" in m["unknown"] else ()
    for name in ("threshold", "false_alarm_rate", "false_alarms", *tested):
        float(m["unknown"][name])
    Calibration(temperature=record.temperature)  # raises where that is none
    if not record.test or int(m["n_test"]) != len(record.test):
        raise ValueError(f"{m['n_test']} test clips in metrics.json, {len(record.test)} in run.json")


def _confusion(rows: Any, k: int, n: int) -> NDArray[np.int64]:
    confusion = np.array(rows, dtype=np.int64)
    if confusion.shape != (k, k) or confusion.min() < 0 or confusion.sum() != n:
        raise ValueError(f"confusion {confusion.shape} of {confusion.sum()} clips, expected ({k}, {k}) of {n}")
    return confusion


def _answers(path: Path, n: int, k: int) -> Answers:
    stored = safetensors.numpy.load_file(path)
    logits, targets, attention = (stored[f"test_{name}"] for name in ("logits", "targets", "attention"))
    if logits.shape != (n, k) or targets.shape != (n,) or attention.ndim != 2 or len(attention) != n:
        raise ValueError(f"{path.name}: logits {logits.shape}, targets {targets.shape}, attention {attention.shape}")
    if not np.isfinite(logits).all() or not np.isfinite(attention).all():
        raise ValueError(f"{path.name} holds numbers that are not finite")
    if targets.min() < 0 or targets.max() >= k:
        raise ValueError(f"{path.name}: targets from {targets.min()} to {targets.max()}, expected 0 to {k - 1}")
    return Answers(logits=logits, targets=targets.astype(np.int64), attention=attention)
