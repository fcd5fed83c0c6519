"""Run folders as what a comparison needs: which test clips each run has right, and which runs are one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fitrec_cache.errors import StoreCorrupt, UsageError
from fitrec_cache.files import canonical_json
from fitrec_cache.one_model import differences, incomplete, model_settings
from fitrec_cache.run_files import find_runs, read_run_settings
from fitrec_cache.units import units_of


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRun:
    """The test side of one run.

    Attributes:
        folder: Where it is.
        settings: What decides the model, as flat names and values; the same for all its seeds and folds.
        seed: Its seed.
        fold: Name of its fold, or empty.
        clips: Ids of its N test clips.
        groups: Their groups, None where unknown.
        labels: Their true classes.
        right: Whether each is recognised, bool ``(N,)``; of equal logits the first class counts.
        n_clips: Clips on all three sides.
    """

    folder: Path
    settings: Mapping[str, str]
    seed: int
    fold: str
    clips: list[str]
    groups: list[str | None]
    labels: list[str]
    right: NDArray[np.bool_]
    n_clips: int

    @property
    def units(self) -> list[str]:
        """What each test clip is drawn with; see :func:`fitrec_cache.units.units_of`."""
        return units_of(self.clips, self.groups, rule=self.settings["split"], fold=self.fold)


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """Runs that differ only in seed or fold; ``split`` is the rule, ``sides`` tells lists of the same name apart."""

    name: str
    split: str
    sides: str
    runs: list[ScoredRun]

    def seeds(self) -> list[int]:
        """Return its seeds, ascending."""
        return sorted({r.seed for r in self.runs})


def find_models(folders: Sequence[Path]) -> tuple[list[Model], list[str]]:
    """Read runs and sort them by model.

    Args:
        folders: Run folders, or folders that hold some at any depth.

    Returns:
        The models in the order found, and remarks.

    Raises:
        UsageError: If a folder holds no run, two runs are the same model, seed and fold, or a clip has two classes.
        StoreCorrupt: If a run's files are damaged.
    """
    runs = [read_scored(folder) for folder in find_runs(folders)]
    _check_classes(runs)
    by_model: dict[str, list[ScoredRun]] = {}
    for run in runs:
        by_model.setdefault(canonical_json(dict(run.settings)), []).append(run)
    settings = [group[0].settings for group in by_model.values()]
    names = [
        ", ".join(filter(None, [f"{s['variant']} on {s['backbone']}", apart]))
        for s, apart in zip(settings, differences(settings), strict=True)
    ]
    models, notes = [], []
    for name, group in zip(names, by_model.values(), strict=True):
        whole, remarks = _whole(name, group)
        models.append(Model(name=name, split=group[0].settings["split"], sides=group[0].settings["sides"], runs=whole))
        notes += remarks
    return models, notes


def read_scored(folder: Path) -> ScoredRun:
    """Read which test clips a run has right.

    Raises:
        StoreCorrupt: If its files are damaged, missing or do not fit each other.
    """
    run = read_run_settings(folder)
    try:
        sides, labels = run["split"], [str(label) for label in run["labels"]]
        clips = [str(c) for c in sides["test"]]
        groups = sides.get("test_groups") or [None] * len(clips)
        with safetensors.safe_open(folder / "logits.safetensors", framework="numpy") as file:
            logits, truth = file.get_tensor("test_logits"), file.get_tensor("test_targets")
        if logits.shape != (len(clips), len(labels)) or truth.shape != (len(clips),) or len(groups) != len(clips):
            raise StoreCorrupt(
                f"{folder}: logits of shape {logits.shape}, {truth.shape} targets and {len(groups)} groups for "
                f"{len(clips)} test clips of {len(labels)} classes. Train the head again"
            )
        if not np.isfinite(logits).all() or not ((truth >= 0) & (truth < len(labels))).all():
            raise StoreCorrupt(
                f"{folder}: logits that are not finite, or targets that are none of 0 to {len(labels) - 1}. "
                "Train the head again"
            )
        return ScoredRun(
            folder=folder,
            settings=model_settings(run),
            seed=int(run["seed"]),
            fold=str(run.get("fold", "")),
            clips=clips,
            groups=[None if g is None else str(g) for g in groups],
            labels=[labels[k] for k in truth],
            right=logits.argmax(axis=1) == truth,
            n_clips=sum(len(sides.get(name, ())) for name in ("train", "val", "test")),
        )
    except (KeyError, IndexError, TypeError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise StoreCorrupt(
            f"{folder} cannot be compared: {type(error).__name__} {error}. Expected run.json and logits.safetensors "
            "as train-head writes them; train the head again"
        ) from error


def _whole(name: str, runs: Sequence[ScoredRun]) -> tuple[list[ScoredRun], list[str]]:
    """Return the runs of the seeds that have the most folds, the same ones, and notes of what is missing."""
    if twice := [key for key, n in Counter((r.seed, r.fold) for r in runs).items() if n > 1]:
        same = [str(r.folder) for r in runs if (r.seed, r.fold) == twice[0]]
        raise UsageError(
            f"{same[0]} and {same[1]} are runs of the same model, seed and fold ({name}, seed {twice[0][0]}): "
            "name one of them"
        )
    notes = []
    if left_out := incomplete([(r.seed, r.fold) for r in runs]):
        folds = len({r.fold for r in runs})
        notes.append(f"{name}: seed {', '.join(map(str, left_out))} lacks some of the {folds} folds: left out")
    kept = [r for r in runs if r.seed not in left_out]
    tested = len({clip for r in kept for clip in r.clips})
    if kept[0].fold and tested < kept[0].n_clips:
        notes.append(f"{name}: folds are missing, {tested} of {kept[0].n_clips} clips were tested")
    return kept, notes


def _check_classes(runs: Sequence[ScoredRun]) -> None:
    known: dict[str, tuple[str, Path]] = {}
    for run in runs:
        for clip, label in zip(run.clips, run.labels, strict=True):
            before, where = known.setdefault(clip, (label, run.folder))
            if before != label:
                raise UsageError(
                    f"clip {clip} is of class {before} in {where} and of class {label} in {run.folder}: runs on data "
                    "with other labels cannot be compared"
                )
