"""What the page shows about one model: charts, matrix, frequent confusions and attention, ready for the template."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fitrec_cache.report.attention import Attention, attention
from fitrec_cache.report.calibration import Confidence, calibration
from fitrec_cache.report.charts import curve_svg
from fitrec_cache.report.models import ClassRow, Model
from fitrec_cache.report.pictures import Chart, Frames, Glimpse, data_uri

#: Limits that keep the file small: classes in the matrix, confusions, clips per confusion.
MOST_CLASSES, MOST_PAIRS, MOST_CLIPS = 60, 6, 2


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One field of the confusion matrix: number of clips, and their share of the true class in whole percent."""

    count: int
    share: int


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Rows of a confusion matrix; ``left_out`` is the number of classes that did not fit."""

    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A true class often taken for another, with clips of both."""

    true: str
    guess: str
    times: int
    of: int
    clips: tuple[Glimpse, ...]
    example: Glimpse | None


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """Everything the page shows about a model."""

    model: Model
    curves: tuple[Chart, ...]
    classes: tuple[ClassRow, ...]
    matrix: Matrix
    confusions: tuple[Confusion, ...]
    attention: Attention
    calibration: Confidence


def view(model: Model, frames: Frames | None) -> ModelView:
    """Return what the page shows about a model, with frames if available."""
    return ModelView(
        model=model,
        curves=_curves(model),
        classes=tuple(model.classes()),
        matrix=_matrix(model),
        confusions=tuple(_confusions(model, frames)),
        attention=attention(model.shown, frames),
        calibration=calibration(model),
    )


def _curves(model: Model) -> tuple[Chart, ...]:
    runs = [(record.metrics["history"], int(record.metrics["best_epoch"])) for record in model.runs]
    last, kept = model.shown.metrics["history"][-1], model.shown.best
    words = {
        "loss": f"from {last['train_loss']:.2f} in training to {kept['val_loss']:.2f} in validation at the kept epoch",
        "accuracy": f"{last['train_accuracy']:.0%} in training at the end, {kept['val_accuracy']:.0%} in validation "
        "at the kept epoch",
    }
    return tuple(
        Chart(
            uri=data_uri(curve_svg(runs, measure), "image/svg+xml"),
            alt=f"{measure.capitalize()} over the epochs: {said} (seed {model.shown.seed}).",
        )
        for measure, said in words.items()
    )


def _matrix(model: Model) -> Matrix:
    confusion, labels = model.confusion, model.first.labels
    support = confusion.sum(axis=1)
    errors = support + confusion.sum(axis=0) - 2 * np.diag(confusion)
    used = np.flatnonzero((support > 0) | (confusion.sum(axis=0) > 0))
    kept = np.sort(used[np.argsort(-errors[used], kind="stable")[:MOST_CLASSES]])
    rows = []
    for i in kept:
        total = max(int(support[i]), 1)
        cells = tuple(Cell(count=int(confusion[i, j]), share=round(100 * confusion[i, j] / total)) for j in kept)
        rows.append((labels[i], cells))
    return Matrix(labels=tuple(labels[i] for i in kept), rows=tuple(rows), left_out=len(used) - len(kept))


def _confusions(model: Model, frames: Frames | None) -> Iterable[Confusion]:
    labels = model.first.labels
    for i, j, times in model.worst_pairs(MOST_PAIRS):
        clips, example = [], None
        if frames is not None:
            ids = _taken_for(model, i, j)
            clips = [clip for name in ids[: 3 * MOST_CLIPS] if (clip := frames.glimpse(name))][:MOST_CLIPS]
            trained = frames.of_class(labels[j], model.shown.run_json["split"]["train"])
            example = frames.glimpse(trained) if trained else None
        yield Confusion(
            true=labels[i],
            guess=labels[j],
            times=times,
            of=int(model.confusion[i].sum()),
            clips=tuple(clips),
            example=example,
        )


def _taken_for(model: Model, true: int, guess: int) -> list[str]:
    """Return the distinct test clips of one class that a run answered as another."""
    found: dict[str, None] = {}
    for record in model.runs:
        hits = (record.tested.targets == true) & (record.tested.guesses == guess)
        found |= dict.fromkeys(record.clips[i] for i in np.flatnonzero(hits))
    return list(found)
