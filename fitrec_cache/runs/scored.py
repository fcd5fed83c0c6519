"""Runs prepared for comparison: the answers of each run's head, and the grouping of runs into models."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import canonical_json
from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.dataset.rules import rule_of, units_of_run
from fitrec_cache.dataset.units import validation_units
from fitrec_cache.errors import StoreCorrupt, UsageError
from fitrec_cache.evaluation.metrics import interval_by_unit
from fitrec_cache.evaluation.paired import FloatArray, count_right, widened_for_folds
from fitrec_cache.runs.models import differences, incomplete, model_settings
from fitrec_cache.runs.outputs import Outputs, read_outputs
from fitrec_cache.runs.run_files import read_run_settings, refused_if_damaged


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRun:
    """One run folder: its settings and the outputs of its head.

    Attributes:
        folder: The run folder.
        run_json: The content of its ``run.json``.
        validated: The outputs for its validation clips, by the head that was never trained on them: the tested one,
            unless the recipe refits.
        tested: The outputs for its N test clips.
    """

    folder: Path
    run_json: Mapping[str, Any] = field(repr=False)  # it names every clip
    validated: Outputs = field(repr=False)
    tested: Outputs = field(repr=False)

    @cached_property
    def model_settings(self) -> dict[str, str]:
        """The settings that define the model; see :func:`fitrec_cache.runs.models.model_settings`."""
        return model_settings(self.run_json)

    @property
    def variant(self) -> str:
        """Name of the head's variant."""
        return self.model_settings["variant"]

    @property
    def backbone(self) -> str:
        """Names of the backbones, joined by ``+``."""
        return self.model_settings["backbone"]

    @property
    def split(self) -> str:
        """The split's rule; for lists of clips their names, without folders."""
        return self.model_settings["split"]

    @property
    def seed(self) -> int:
        """The seed of the initial weights and the batches, and of the split unless that has a seed of its own."""
        return int(self.run_json["seed"])

    @property
    def fold(self) -> str:
        """The fold's name if the split has several; otherwise empty."""
        return str(self.run_json["fold"])

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The K class names."""
        return tuple(str(label) for label in self.run_json["labels"])

    @cached_property
    def clips(self) -> tuple[str, ...]:
        """Ids of the test clips."""
        return tuple(str(clip) for clip in self.run_json["split"]["test"])

    @property
    def groups(self) -> list[str | None]:
        """The groups of the test clips, None where unknown."""
        return list(self.run_json["split"]["test_groups"])

    @cached_property
    def units(self) -> list[str]:
        """The statistical unit of each test clip; see :func:`fitrec_cache.dataset.rules.units_of_run`."""
        return units_of_run(self.run_json)

    @cached_property
    def val_units(self) -> list[str]:
        """The statistical unit of each validation clip; see :func:`fitrec_cache.dataset.units.validation_units`."""
        return validation_units(self.run_json)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each test clip is recognised correctly, ``(N,)``."""
        return self.tested.right

    @property
    def val_share(self) -> Fraction:
        """The share of validation clips answered correctly by the head that was never trained on them."""
        right = self.validated.right
        return Fraction(int(right.sum()), len(right))

    @property
    def n_clips(self) -> int:
        """Number of clips on all three sides."""
        return sum(len(self.run_json["split"].get(name, ())) for name in SIDES)


def per_clip(runs: Sequence[ScoredRun]) -> tuple[FloatArray, FloatArray, dict[str, str]]:
    """Return how often each distinct test clip was recognised, and tested, ``(M,)``, and the unit of each."""
    return count_right((run.clips, run.units, run.right) for run in runs)


def widened(
    interval: tuple[float, float], middle: float, runs: Sequence[ScoredRun], *, least: float = -1.0
) -> tuple[float, float]:
    """Return an interval over the test clips of all runs, widened if these are folds; see :func:`widened_for_folds`.

    Seeds that each have a split of their own count as folds, as many as it takes to test every clip once.
    """
    tested = float(np.mean([len(run.clips) for run in runs]))
    n = float(np.mean([run.n_clips for run in runs]))
    sides = len({frozenset(run.clips) for run in runs})
    splits = len({(run.fold, run.run_json["split"].get("seed", run.seed)) for run in runs})  # clips may have been added
    return widened_for_folds(
        interval, middle, folds=min(sides, splits), tested=tested, trained=max(1.0, n - tested), least=least
    )


def accuracy_widened(interval: tuple[float, float], accuracy: float, runs: Sequence[ScoredRun]) -> tuple[float, float]:
    """Return :func:`widened` of an accuracy; as it is under ``leave-one``, whose units are folds with their heads."""
    return interval if rule_of(runs[0].split).by_fold else widened(interval, accuracy, runs, least=0.0)


def interval_over(
    runs: Sequence[ScoredRun], counted: tuple[FloatArray, FloatArray, Mapping[str, str]]
) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy over runs, of clips counted as by :func:`per_clip`."""
    right, tested, units = counted
    return accuracy_widened(
        interval_by_unit(right, tested, list(units.values())), float(right.sum() / tested.sum()), runs
    )


R = TypeVar("R", bound=ScoredRun)


@dataclass(frozen=True, kw_only=True, eq=False)
class Model(Generic[R]):
    """Runs that differ only in seed or fold.

    Attributes:
        runs: One per seed and fold, at least one.
        apart: The settings that distinguish it from other models of its variant, backbone and split, in words; may be
            empty.
    """

    runs: Sequence[R]
    apart: str = ""

    @property
    def first(self) -> R:
        """A run to read the common settings from."""
        return self.runs[0]

    @property
    def name(self) -> str:
        """Variant, backbone and distinguishing settings; unique among the models of its split."""
        return ", ".join(filter(None, [f"{self.first.variant} on {self.first.backbone}", self.apart]))

    @property
    def split(self) -> str:
        """The split's rule."""
        return self.first.split

    @property
    def sides(self) -> str:
        """A digest that distinguishes splits by lists of the same name."""
        return self.first.model_settings["sides"]

    @cached_property
    def by_seed(self) -> dict[int, list[R]]:
        """The folds of each seed, with seeds ascending."""
        seeds: dict[int, list[R]] = defaultdict(list)
        for run in self.runs:
            seeds[run.seed].append(run)
        return dict(sorted(seeds.items()))

    @property
    def folds(self) -> list[str]:
        """Names of the folds; a single empty name if there are none."""
        return sorted({run.fold for run in self.runs})

    @property
    def val_accuracy(self) -> float:
        """Mean validation accuracy of its runs; bit-identical for models with the same number of correct answers."""
        return float(sum(run.val_share for run in self.runs) / len(self.runs))

    @cached_property
    def validated_on(self) -> frozenset[tuple[str, frozenset[str]]]:
        """The validation clips of each fold, over all seeds; models can be compared on them only if they are equal."""
        return frozenset((run.fold, frozenset(run.run_json["split"]["val"])) for run in self.runs)

    @cached_property
    def per_clip(self) -> tuple[FloatArray, FloatArray, dict[str, str]]:
        """How often each of its M distinct test clips was recognised, and tested, ``(M,)``, and the unit of each."""
        return per_clip(self.runs)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy; further seeds do not count as further clips.

        Wilson's interval for the number of distinct clips, or for their effective number if some come from one
        recording; of several folds :func:`accuracy_widened`.
        """
        return interval_over(self.runs, self.per_clip)

    @property
    def val_interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy on validation clips over all runs, as if they were those of one split."""
        right, tested, units = count_right(
            (r.run_json["split"]["val"], r.val_units, r.validated.right) for r in self.runs
        )
        return interval_by_unit(right, tested, list(units.values()))


def gather_models(runs: Sequence[R]) -> tuple[list[Model[R]], list[str]]:
    """Group runs by model; seeds that lack folds of another seed are left out.

    Returns:
        The models in the order found, and notes.

    Raises:
        UsageError: If two runs have the same model, seed and fold, or a clip has two classes.
    """
    _check_classes(runs)
    groups: dict[str, list[R]] = {}
    for run in runs:
        groups.setdefault(canonical_json(run.model_settings), []).append(run)
    apart = differences([group[0].model_settings for group in groups.values()])
    models, notes = [], []
    for text, group in zip(apart, groups.values(), strict=True):
        model, remarks = _whole_seeds(Model(runs=group, apart=text))
        models.append(model)
        notes += remarks
    return models, notes


@plain_arguments
def read_scored(folder: Path) -> ScoredRun:
    """Read a run's settings and the outputs of its head.

    Raises:
        UsageError: If the folder is no run.
        StoreCorrupt: If its files are damaged or missing, or do not match each other.
        FitrecError: If it was written by another program version.
    """
    if not (folder / "run.json").exists():
        from fitrec_cache.runs.run import no_run  # which loads torch

        raise no_run(folder)
    run = read_run_settings(folder)
    with refused_if_damaged(folder / "run.json"):
        validated, tested = read_outputs(folder, run, "val"), read_outputs(folder, run, "test")
        if not len(validated.targets) or not len(tested.targets):
            raise StoreCorrupt(f"{folder}/run.json names no clips to validate or to test on. Train the head again")
        found = ScoredRun(folder=folder, run_json=run, validated=validated, tested=tested)
        # Evaluate these now, so that a damaged run.json is reported by its name, and not in the middle of a comparison.
        _ = (found.model_settings, found.seed, found.fold, found.labels, found.clips, found.units, found.val_units)
        _ = (found.n_clips, set(found.groups), set(run["split"]["val"]))
        return found


def _whole_seeds(model: Model[R]) -> tuple[Model[R], list[str]]:
    """Return the model with only those seeds that have the most folds, and notes on what is missing."""
    name, runs = model.name, model.runs
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
    return replace(model, runs=kept), notes


def _check_classes(runs: Sequence[ScoredRun]) -> None:
    known: dict[str, tuple[str, Path]] = {}
    for run in runs:
        for clip, target in zip(run.clips, run.tested.targets.tolist(), strict=True):
            label = run.labels[target]
            before, where = known.setdefault(clip, (label, run.folder))
            if before != label:
                raise UsageError(
                    f"clip {clip} is of class {before} in {where} and of class {label} in {run.folder}: runs on data "
                    "with other labels cannot be compared"
                )
