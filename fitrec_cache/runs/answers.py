"""The answers of heads, clip by clip, as tables for spreadsheets and other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.files import write_csv
from fitrec_cache.evaluation.calibration import Calibration
from fitrec_cache.runs.ensemble import Ensemble
from fitrec_cache.runs.outputs import read_strangers
from fitrec_cache.runs.scored import ScoredRun

#: The answer, empty for "unknown"; the most probable class; its probability.
COLUMNS = ("answer", "nearest", "probability")

#: What is known of a clip.
_CLIP = ("clip_id", "group", "label")


def class_columns(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the column names of the probabilities, one per class."""
    return tuple(f"p_{label}" for label in labels)


def answer_cells(labels: Sequence[str], probabilities: Sequence[float], *, unknown: bool) -> dict[str, str]:
    """Return the cells of one row.

    Args:
        labels: K class names.
        probabilities: The probability of each class, in the same order.
        unknown: Whether no class is probable enough.

    Returns:
        The cells of :data:`COLUMNS` and :func:`class_columns`; probabilities with six decimals: of many classes,
        most are so improbable that fewer would make them tie, and top-5 accuracy could not be counted.
    """
    nearest, highest = max(zip(labels, probabilities, strict=True), key=lambda pair: pair[1])
    row = {"answer": "" if unknown else nearest, "nearest": nearest, "probability": f"{highest:.6f}"}
    return row | dict(zip(class_columns(labels), (f"{p:.6f}" for p in probabilities), strict=True))


def write_answers(runs: Sequence[ScoredRun], path: Path, strangers: Sequence[tuple[str, str | None, str]] = ()) -> None:
    """Write what tested heads answered, one row per run and clip: for test clips and for clips of held-out classes.

    Args:
        runs: The runs of one call.
        strangers: Clip id, group and class of each clip of a held-out class, in the order of the runs.
        path: CSV file with the columns ``fold``, ``seed``, ``clip_id``, ``group``, ``label`` (the clip's class),
            :data:`COLUMNS` and one probability per class, empty if the fold's head does not know the class.

    Raises:
        StoreCorrupt: If a run is damaged.
        StoreError: If the file cannot be written.
    """
    labels = sorted({label for run in runs for label in run.labels})
    names = ("fold", "seed", *_CLIP, *COLUMNS, *class_columns(labels))
    write_csv(path, names, (row for run in runs for row in _rows(run, strangers)))


def write_joint_answers(
    runs: Sequence[ScoredRun], ensemble: Ensemble, path: Path, strangers: Sequence[tuple[str, str | None, str]] = ()
) -> None:
    """Write what heads with the same test clips answered together: one row per clip, of no fold or seed.

    The other arguments are as for :func:`write_answers`, whose errors are raised.
    """
    labels, sides = runs[0].labels, [_sides(run, strangers) for run in runs]
    rows: list[dict[str, Any]] = []
    for of_one_side in zip(*sides, strict=True):
        probabilities, unknown = ensemble.answers([logits for logits, _ in of_one_side])
        clips = of_one_side[0][1]
        for clip, row, odd in zip(clips, probabilities.tolist(), unknown.tolist(), strict=True):
            rows.append(clip | answer_cells(labels, row, unknown=odd))
    write_csv(path, (*_CLIP, *COLUMNS, *class_columns(labels)), rows)


def _rows(run: ScoredRun, strangers: Sequence[tuple[str, str | None, str]]) -> Iterator[dict[str, Any]]:
    calibration = Calibration.of(run.run_json)
    for logits, clips in _sides(run, strangers):
        for clip, row in zip(clips, calibration.probabilities(logits).tolist(), strict=True):
            known = {"fold": run.fold, "seed": run.seed} | clip
            yield known | answer_cells(run.labels, row, unknown=max(row) < calibration.threshold)


def _sides(
    run: ScoredRun, strangers: Sequence[tuple[str, str | None, str]]
) -> list[tuple[NDArray[np.float32], list[dict[str, Any]]]]:
    """Return logits and clips: of the test, and of held-out classes if there are any."""
    truth = [run.labels[target] for target in run.tested.targets.tolist()]
    sides = [(run.tested.logits, list(zip(run.clips, run.groups, truth, strict=True)))]
    sides += [(read_strangers(run.folder, run.run_json), list(strangers))] if strangers else []
    return [(logits, [dict(zip(_CLIP, clip, strict=True)) for clip in clips]) for logits, clips in sides]
