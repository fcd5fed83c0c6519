"""The objective of a recipe search: validation accuracy over some splits and seeds, without looking at test clips."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.files import digest
from fitrec_cache.dataset.folds import Fold, make_folds
from fitrec_cache.dataset.units import units_of
from fitrec_cache.errors import UsageError
from fitrec_cache.evaluation.paired import count_right, exact_p
from fitrec_cache.features import Features
from fitrec_cache.settings.recipes import Recipe
from fitrec_cache.training.fit import Normalisations, Side, apply_head, fit
from fitrec_cache.training.loading import refuse_answer

Right = list[NDArray[np.bool_]]
"""Which validation clips a trained head recognises, for each seed and split; ordered by seed, then by split."""


def accuracy(right: Right) -> float:
    """Return the validation accuracy, averaged over splits and seeds."""
    return float(np.mean([each.mean() for each in right]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sides:
    """The part of one split that a search may see: everything but its test side.

    Attributes:
        name: Rule, fold and seed of the split.
        n_classes: Number of classes K.
        targets: Class number of every clip, int64 ``(N,)``.
        train: Numbers of the training clips, int64.
        val: Numbers of the validation clips, int64.
        train_ids: Ids of the training clips.
        val_ids: Ids of the validation clips.
    """

    name: str
    n_classes: int
    targets: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """The clips and splits of a search, and the evaluation of recipes on their validation sides.

    Attributes:
        variant: A key of :data:`fitrec_cache.settings.variants.VARIANTS` that is trained on features.
        epochs: Number of epochs of every trial.
        backbone: Names of the features.
        values: Features of all clips, ``(N, T, d)``.
        pose_dim: How many of the d values, the last ones, are poses.
        data_sha256: A digest of everything that training uses of the clips.
        splits: The visible part of each split.
        units: The statistical unit of each validation clip: its group, or the clip itself.
        notes: Notes on what was left out, and on clips that one split tests and another uses for training or
            validation.
        normalisations: Normalisations fitted in earlier trials, for reuse.
    """

    variant: str
    epochs: int
    backbone: str
    values: NDArray[Any]
    pose_dim: int
    data_sha256: str
    splits: tuple[Sides, ...]
    units: dict[str, str]
    notes: tuple[str, ...]
    normalisations: Normalisations = field(default_factory=dict)

    @classmethod
    def of(cls, data: Features, *, variant: str, split: Sequence[str], seed: Sequence[int], epochs: int) -> Problem:
        """Split clips by each rule and seed; the arguments are those of :func:`fitrec_cache.sweep.sweep`."""
        refuse_answer(data.labels)
        calls = [(rule, number) for rule in split for number in seed]
        folds = [(fold, number) for rule, number in calls for fold in make_folds(rule, **data.columns, seed=number)]
        splits = tuple(_sides(data, fold, number) for fold, number in folds)
        names = [each.name for each in splits]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"split {min(twice)} is asked for twice: expected each once (auto is group or random)")
        units = dict(zip(data.clip_ids, units_of(data.clip_ids, data.groups), strict=True))
        return cls(
            variant=variant,
            epochs=epochs,
            backbone=data.name,
            values=data.values,
            pose_dim=data.pose_dim,
            data_sha256=data.digest(),
            splits=splits,
            units={clip: units[clip] for each in splits for clip in each.val_ids},
            notes=(*data.notes, *_overlap(fold for fold, _ in folds)),
        )

    @property
    def name(self) -> str:
        """All settings that must be equal for trials to be comparable."""
        clips = digest([[each.train_ids, each.val_ids] for each in self.splits])
        names = [each.name for each in self.splits]
        poses = ["poses apart"] * bool(self.pose_dim)  # earlier versions trained on them otherwise
        return json.dumps([self.variant, self.backbone, names, self.epochs, self.data_sha256, clips, *poses])

    def judge(
        self,
        recipe: Recipe,
        attention: str | None,
        seeds: Sequence[int],
        report: Callable[[float, int], None] | None = None,
    ) -> Right:
        """Train with a recipe, for each seed on each split, and return which validation clips are recognised.

        ``report`` is called after each training with the accuracy so far and the number of trainings done.

        Raises:
            DivergedError: If a training diverges.
        """
        found: Right = []
        for number in seeds:
            for each in self.splits:
                train, val = (
                    Side(values=self.values, targets=each.targets, clips=c, normalisations=self.normalisations)
                    for c in (each.train, each.val)
                )
                config = recipe.head_config(
                    self.variant,
                    self.values.shape,
                    n_classes=each.n_classes,
                    n_train=len(each.train),
                    attention=attention,
                    pose_dim=self.pose_dim,
                )
                fitted = fit(train, val, config=config, recipe=recipe.change(refit=False), seed=number)
                logits, _ = apply_head(fitted.judge, self.values, each.val, each.val_ids)
                found.append(logits.argmax(dim=1).numpy() == each.targets[each.val])
                if report is not None:
                    report(accuracy(found), len(found))
        return found

    def p_value(self, ours: Right, theirs: Right) -> float:
        """Return the p-value of the exact paired test between two recipes, judged with the same number of seeds.

        A clip that occurs in several splits counts once, and clips of one group are counted together.
        """
        judged = [each.val_ids for each in self.splits]
        judged *= len(ours) // len(judged)
        (mine, _, units), (other, _, _) = (
            count_right(
                (clips, [self.units[clip] for clip in clips], right) for clips, right in zip(judged, side, strict=True)
            )
            for side in (ours, theirs)
        )
        return exact_p(mine - other, list(units.values()))


def _sides(data: Features, fold: Fold, seed: int) -> Sides:
    split = fold.split
    names, targets = split.classes(data.labels)
    return Sides(
        name=" ".join(part for part in (split.rule, fold.name, f"seed {seed}") if part),
        n_classes=len(names),
        targets=targets,
        train=split.train,
        val=split.val,
        train_ids=tuple(data.clip_ids[i] for i in split.train),
        val_ids=tuple(data.clip_ids[i] for i in split.val),
    )


def _overlap(folds: Iterable[Fold]) -> list[str]:
    """Return a note on clips that one split tests and another has in training or validation."""
    seen: set[int] = set()
    tested: set[int] = set()
    for fold in folds:
        seen.update(fold.split.train.tolist(), fold.split.val.tolist())
        tested.update(fold.split.test.tolist())
    if not (both := len(seen & tested)):
        return []
    return [
        f"{both} of {len(tested)} clips that one of these splits tests are in training or validation of another: for "
        "a test that the search has not touched, give one split, or keep clips out of all"
    ]
