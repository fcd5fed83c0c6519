"""Results of training: metrics of single runs, of all folds together, and of the mean probabilities of seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.evaluation.calibration import Calibration, auroc, calibration_error, expected_error
from fitrec_cache.evaluation.metrics import Metrics, evaluate
from fitrec_cache.runs.ensemble import Ensemble
from fitrec_cache.runs.outputs import read_strangers
from fitrec_cache.runs.run_files import read_run_json, refused_if_damaged
from fitrec_cache.runs.scored import ScoredRun, accuracy_widened, read_scored

#: Tables of single runs, which are written to their ``metrics.json`` only.
_TABLES = ("per_class", "confusion")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One trained head: its folder, its settings and its metrics on the test side.

    Attributes:
        out: Its run folder.
        variant: The head.
        backbone: Its features.
        recipe: Name of the recipe.
        split: The split rule.
        fold: The fold; empty if the rule makes a single split.
        seed: Its seed.
        n_train: Number of training clips, as ``n_val`` and ``n_test`` are those of the other sides.
        epochs: Number of epochs that were trained.
        best_epoch: The epoch whose weights were kept.
        parameters: Number of trained parameters.
        seconds: Wall time of the training.
        metrics: Its metrics on the test clips.
        calibration: ``temperature``, and how far its probabilities on test clips are off on average: ``ece``,
            ``ece_uncalibrated`` (without temperature), ``ece_expected`` (what chance alone would give), and ``bins``.
        unknown: ``threshold`` below which it answers "unknown", ``false_alarm_rate`` (asked for) and ``false_alarms``,
            the share of test clips so answered; if classes were held out, also the number ``n`` of their clips, the
            share ``detected`` and the ``auroc``.
    """

    out: Path
    variant: str
    backbone: str
    recipe: str
    split: str
    fold: str
    seed: int
    n_train: int
    n_val: int
    n_test: int
    epochs: int
    best_epoch: int
    parameters: int
    seconds: float
    metrics: Metrics
    calibration: dict[str, Any] = field(repr=False)
    unknown: dict[str, Any] = field(repr=False)

    @property
    def answers(self) -> dict[str, Any]:
        """Its metrics under the names of :func:`average_runs`, which gives those of several seeds together."""
        chances = {name: self.calibration[name] for name in ("ece", "ece_expected", "bins")}
        limits = {"temperature": self.calibration["temperature"], "threshold": self.unknown["threshold"]}
        found = {
            "seeds": [self.seed],
            **self.metrics.to_dict(),
            **chances,
            "false_alarms": self.unknown["false_alarms"],
            **limits,
        }
        if "auroc" in self.unknown:
            names = {"n_unknown": "n", "detected": "detected", "auroc": "auroc"}
            found |= {name: self.unknown[own] for name, own in names.items()}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values, without the per-class tables (they are in ``metrics.json``)."""
        figures = self.metrics.to_dict()
        apart = ("out", "metrics", "seconds", "calibration", "unknown")
        plain = {k: v for k, v in vars(self).items() if k not in apart}
        left_out = ("n", *_TABLES)
        return {
            **plain,
            "seconds": round(self.seconds, 3),
            "out": str(self.out),
            **{k: v for k, v in figures.items() if k not in left_out},
            "calibration": {k: v for k, v in self.calibration.items() if k != "bins"},
            "unknown": self.unknown,
        }


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """The result of :func:`fitrec_cache.train.train_head`.

    Attributes:
        runs: One per seed, or one per seed and fold.
        pooled: If the split has several folds: metrics over the test clips of all folds, one entry per seed.
        ensemble: If all runs have the same test clips: metrics of their mean probabilities; otherwise empty.
        final: Whether each seed has a final head, which was trained on all clips and is used for new videos.
        leaks: Whether any split leaks.
        wrong: The notes on leaks, if there are any, and on classes that cannot be learned.
        notes: Notes for the user.
        stages: Seconds spent, by stage.
        threads: Number of PyTorch's threads while training.
        others: How many cores other programs used, if that slowed this one down; see
            :class:`fitrec_cache.common.cpu_contention.CpuContention`.
    """

    runs: tuple[RunResult, ...]
    pooled: tuple[dict[str, Any], ...] = field(repr=False)  # these two have tables of each class
    ensemble: dict[str, Any] = field(repr=False)
    final: bool
    leaks: bool
    wrong: tuple[str, ...]
    notes: tuple[str, ...]
    stages: dict[str, float]
    threads: int = 1
    others: float | None = None

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of each seed, over all folds if there are several."""
        return [p["accuracy"] for p in self.pooled] or [r.metrics.accuracy for r in self.runs]

    @property
    def answers(self) -> dict[str, Any]:
        """The metrics of the answers on test clips, as ``predict`` gives them: ``accuracy``, ``accuracy_ci95``, ...

        The names are those of ``ensemble``, also if a single seed answers.
        """
        return self.ensemble or self.runs[0].answers

    def answered(self) -> Counter[tuple[str, str]]:
        """Return how often test clips of each class got each answer, over all runs, by (true, answered) class."""
        counts: Counter[tuple[str, str]] = Counter()
        for run in self.runs:
            labels = [row["label"] for row in run.metrics.per_class]
            for i, j in np.argwhere(run.metrics.confusion).tolist():
                counts[labels[i], labels[j]] += int(run.metrics.confusion[i, j])
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        accuracies = self.accuracies
        tested = [p["n"] for p in self.pooled] or [r.n_test for r in self.runs]
        return {
            "runs": [r.to_dict() for r in self.runs],
            "pooled": list(self.pooled),
            "ensemble": self.ensemble,
            "accuracy_mean": float(np.average(accuracies, weights=tested)),  # over all tests, as in `compare`
            "accuracy_std": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
            "leaks": self.leaks,
            "notes": list(self.notes),
            "stages": {name: round(s, 3) for name, s in self.stages.items()},
            "threads": self.threads,
            "others": self.others,
        }


def read_result(folder: Path) -> RunResult:
    """Return the result of an existing run, computed from the stored outputs of its head.

    ``run.json`` holds the checksum of these outputs, so damage is noticed.

    Raises:
        StoreCorrupt: If its files are damaged or missing, or do not match each other.
    """
    told = read_run_json(folder / "metrics.json")
    with refused_if_damaged(folder / "metrics.json"):
        epochs, best_epoch, parameters = (int(told[name]) for name in ("epochs", "best_epoch", "parameters"))
        seconds = float(told["seconds"])
    scored = read_scored(folder)
    with refused_if_damaged(folder / "run.json"):
        strange = read_strangers(folder, scored.run_json) if scored.run_json["split"]["unknown"] else None
        return result_of(scored, strange, epochs=epochs, best_epoch=best_epoch, parameters=parameters, seconds=seconds)


def result_of(
    scored: ScoredRun,
    strange: NDArray[np.float32] | None,
    *,
    epochs: int,
    best_epoch: int,
    parameters: int,
    seconds: float,
) -> RunResult:
    """Return the result of a run, computed from the outputs of its head.

    Args:
        scored: The run.
        strange: Logits ``(M, K)`` of the clips of held-out classes, if there are any.
        epochs: Number of epochs that were trained.
        best_epoch: The epoch whose weights were kept.
        parameters: Number of trained parameters.
        seconds: Wall time of the training.
    """
    run = scored.run_json
    n_train, n_val, n_test = (len(run["split"][side]) for side in SIDES)
    calibration, unknown = _judge(scored, strange)
    return RunResult(
        out=scored.folder,
        variant=scored.variant,
        backbone=scored.backbone,
        recipe=str(run["recipe"]),
        split=str(run["split"]["rule"]),
        fold=scored.fold,
        seed=scored.seed,
        n_train=n_train,
        n_val=n_val,
        n_test=n_test,
        epochs=epochs,
        best_epoch=best_epoch,
        parameters=parameters,
        seconds=seconds,
        metrics=figures_of([scored]),
        calibration=calibration,
        unknown=unknown,
    )


def _judge(scored: ScoredRun, strange: NDArray[np.float32] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the calibration figures of a head, and the figures of its threshold for "unknown"."""
    calibration, logits, truth = Calibration.of(scored.run_json), scored.tested.logits, scored.tested.targets
    sure = calibration.probabilities(logits)
    error, bins = calibration_error(sure, truth)
    raw_error, _ = calibration_error(Calibration().probabilities(logits), truth)
    surest = sure.max(axis=1)
    unknown: dict[str, Any] = {
        "threshold": calibration.threshold,
        "false_alarm_rate": calibration.false_alarm_rate,
        "false_alarms": float((surest < calibration.threshold).mean()),
    }
    if strange is not None:
        theirs = calibration.probabilities(strange).max(axis=1)
        unknown |= {
            "n": len(theirs),
            "auroc": auroc(surest, theirs),
            "detected": float((theirs < calibration.threshold).mean()),
        }
    told = {
        "temperature": calibration.temperature,
        "ece": error,
        "ece_uncalibrated": raw_error,
        "ece_expected": expected_error(sure, truth, scored.units),
        "bins": bins,
    }
    return told, unknown


def pool_folds(runs: Sequence[ScoredRun]) -> tuple[dict[str, Any], ...]:
    """Return, for each seed, the metrics over the test clips of all its folds; empty if the split has no folds."""
    if not any(r.fold for r in runs):
        return ()
    pooled = []
    for seed in dict.fromkeys(r.seed for r in runs):
        mine = [r for r in runs if r.seed == seed]
        pooled.append({"seed": seed, "folds": len(mine), **figures_of(mine).to_dict()})
    return tuple(pooled)


def figures_of(runs: Sequence[ScoredRun]) -> Metrics:
    """Return the metrics over the test clips of several runs, such as the folds of one seed."""
    units = [unit for run in runs for unit in run.units]
    logits, truth = (np.concatenate([getattr(run.tested, name) for run in runs]) for name in ("logits", "targets"))
    figures = evaluate(logits, truth, runs[0].labels, units=units)
    return replace(figures, accuracy_ci95=accuracy_widened(figures.accuracy_ci95, figures.accuracy, runs))


def average_runs(runs: Sequence[ScoredRun]) -> tuple[dict[str, Any], Ensemble | None]:
    """Return the metrics of the joint answer of all runs, as ``predict`` gives it, if they have the same test clips.

    Besides those of :class:`fitrec_cache.evaluation.metrics.Metrics`, they contain the calibration error ``ece`` of
    these answers, its ``bins``, and its expected value if the probabilities were right (``ece_expected``);
    ``false_alarms``, the share of test clips that are answered "unknown"; ``temperature`` and ``threshold`` of the mean
    of the probabilities, or None unless all runs have the same validation clips; and, if classes were held out, the
    number of their clips (``n_unknown``), the share of these that is answered "unknown" (``detected``) and the
    ``auroc``.

    Returns:
        The metrics, and how the runs answer together; an empty dict and None if the runs cannot be combined.
    """
    if len(runs) < 2 or any(r.fold or r.clips != runs[0].clips for r in runs):
        return {}, None
    ensemble = Ensemble.of([r.folder for r in runs], [r.run_json for r in runs])
    probabilities, unknown = ensemble.answers([r.tested.logits for r in runs])
    truth = runs[0].tested.targets
    figures = evaluate(probabilities, truth, runs[0].labels, units=runs[0].units).to_dict()
    strange: dict[str, Any] = {}
    if runs[0].run_json["split"].get("unknown"):
        theirs, turned_away = ensemble.answers([read_strangers(r.folder, r.run_json) for r in runs])
        strange = {"n_unknown": len(theirs), "detected": float(turned_away.mean())}
        strange["auroc"] = auroc(probabilities.max(axis=1), theirs.max(axis=1))
    error, bins = calibration_error(probabilities, truth)
    found = {
        "seeds": [r.seed for r in runs],
        **figures,
        "ece": error,
        "ece_expected": expected_error(probabilities, truth, runs[0].units),
        "bins": bins,
        "false_alarms": float(unknown.mean()),
        "temperature": ensemble.mean.temperature if ensemble.mean else None,
        "threshold": ensemble.mean.threshold if ensemble.mean else None,
        **strange,
    }
    return found, ensemble
