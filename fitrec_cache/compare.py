"""Decide which of several models is better, and whether there are enough test clips to say so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import Plain, check_ending, refuse_others
from fitrec_cache.compare_tables import MARKS, write_tables
from fitrec_cache.dataset.rules import rule_of
from fitrec_cache.dataset.units import alone_unit
from fitrec_cache.evaluation.paired import exact_p, gains_by_unit, holm, interval_of_difference
from fitrec_cache.runs.run_files import find_runs, is_run_folder_name, unfinished_in
from fitrec_cache.runs.scored import Model, ScoredRun, gather_models, per_clip, read_scored, widened
from fitrec_cache.wording import plural, some

LEVEL = 0.05
"""Greatest probability of calling any pair of one split different although all models are equally good."""

_OFFICIAL = ("official1", "official2", "official3")


@dataclass(frozen=True, kw_only=True)
class ModelFigures(Plain):
    """The metrics of one model on its test clips.

    Attributes:
        name: Variant, backbone, and settings in which the compared models differ.
        split: Split rule.
        seeds: Its seeds.
        folds: Number of folds of each seed.
        n: Number of distinct test clips.
        n_groups: Number of groups of these clips; None unless every group is known.
        accuracies: Accuracy of each seed, over all its folds.
        accuracy: Accuracy over all tests of all seeds; the mean of ``accuracies`` if seeds test equally many clips.
        sd: Standard deviation of ``accuracies``; None for one seed.
        val_accuracy: Mean over its runs of the accuracy on validation clips, by heads that were not trained on them.
        val_ci95: 95 % interval of the accuracy on the validation clips of all runs, computed as ``ci95`` of one split.
        chosen: Whether ``val_accuracy`` is the highest of all models that were validated on the same clips, if there
            are others. Models should be chosen by this: a choice by test clips would make these clips part of training.
        tied: Whether other models have the same highest value.
        apart: Whether other models were compared, but none was validated on the same clips.
        folder: The folder that contains its runs.
        ci95: 95 % interval of the accuracy; see :func:`fitrec_cache.evaluation.metrics.interval_by_unit`. Units are
            groups, or folds under ``leave-one``, or clips if their groups are unknown. Over several test sides it is
            longer (:func:`fitrec_cache.runs.scored.accuracy_widened`).
    """

    name: str
    split: str
    seeds: tuple[int, ...]
    folds: int
    n: int
    n_groups: int | None
    accuracies: tuple[float, ...]
    accuracy: float
    sd: float | None
    val_accuracy: float
    val_ci95: tuple[float, float]
    chosen: bool
    tied: bool
    apart: bool
    folder: str
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PairFigures(Plain):
    """Two models on the same test clips.

    Attributes:
        a: Name of the better model, judged by the shared runs.
        b: Name of the other one.
        split: Split rule of both.
        n: Number of test clips on which both were tested; 0 if there are none.
        folds: Number of folds of each seed.
        seeds: Seeds that both have, with the same test clips.
        difference: Accuracy of ``a`` minus that of ``b`` on these clips, in ``[0, 1]``.
        ci95: 95 % interval of the difference; see :func:`fitrec_cache.evaluation.paired.interval_of_difference`, and
            over several test sides :func:`fitrec_cache.runs.scored.widened`.
        only_a: Number of clips that ``a`` recognises more often than ``b`` (over the seeds).
        only_b: Number of clips that ``b`` recognises more often than ``a``.
        by: The statistical unit: ``fold``, ``group``, or ``clip``.
        differing: Number of units in which one model has more correct answers than the other.
        p: P-value of the exact sign-flip test over all seeds, with these units (McNemar's for one seed and single
            clips); :func:`fitrec_cache.evaluation.paired.exact_p`. Over several test sides it is too small, as their
            heads share training clips; ``ci95`` takes this into account, and ``claim`` requires both.
        p_holm: ``p`` adjusted for all pairs compared on the same sides (in one family).
        claim: The result in words.
        text: The result in words, with the numbers behind it.
    """

    a: str
    b: str
    split: str
    n: int
    folds: int
    seeds: tuple[int, ...]
    difference: float
    ci95: tuple[float, float]
    only_a: int
    only_b: int
    by: str
    differing: int
    p: float
    p_holm: float
    claim: str
    text: str


@dataclass(frozen=True, kw_only=True)
class CompareReport(Plain):
    """The result of :func:`compare`.

    Attributes:
        models: One entry per model, the best first within each split rule.
        pairs: One entry per pair of models with the same split rule and the same test clips.
        tried: Number of pairs compared; p-values are adjusted for the number on the same sides.
        notes: Notes for the user, such as on pairs that could not be compared.
        out: The file written, if any.
    """

    models: tuple[ModelFigures, ...]
    pairs: tuple[PairFigures, ...]
    tried: int
    notes: tuple[str, ...]
    out: Path | None = None


@plain_arguments
def compare(runs: Sequence[Path], *, out: Path | None = None, families: Sequence[Sequence[Path]] = ()) -> CompareReport:
    """Compare models by their test clips.

    Runs that differ only in seed or fold are one model. Two models are compared on the runs of the same seed and fold
    with the same test clips. One model is said to beat the other if the adjusted p-value is below 0.05 and the interval
    of the difference does not contain zero. Both treat the clips of one group (of one fold under ``leave-one``) as a
    unit, because they are not independent.

    Args:
        runs: Run folders, or folders that contain run folders.
        out: File to write, ``.md`` or ``.csv``; an existing comparison is replaced.
        families: Subsets of the runs: only models of one family are compared, and p-values are adjusted within it.

    Returns:
        The metrics of each model and the comparison of each pair.

    Raises:
        UsageError: If there is no run, a run cannot be compared, or ``out`` has another ending or is another file.
        StoreCorrupt: If a run's files are damaged.
    """
    if out is not None:
        check_ending(out, "--out", ".md", ".csv")
        refuse_others(out, "--out", MARKS[out.suffix.lower()], "a comparison")
    scored = [read_scored(folder) for folder in find_runs(runs)]
    report = replace(compare_runs(scored, families=families), out=out)
    if out is not None:
        write_tables(report, out)
    return report


def compare_runs(runs: Sequence[ScoredRun], *, families: Sequence[Sequence[Path]] = ()) -> CompareReport:
    """Compare models by runs that have been read; see :func:`compare`."""
    models, notes = gather_models(runs)
    notes += _unfinished(runs)
    validated: dict[Any, list[float]] = {}  # the validation accuracies of models that were validated on the same clips
    for model in models:
        validated.setdefault(model.validated_on, []).append(model.val_accuracy)
    figures = [_figures(m, validated[m.validated_on], alone=len(models) == 1) for m in models]
    order = sorted(range(len(models)), key=lambda i: (figures[i].split, -figures[i].accuracy))
    family_of = {folder.resolve(): number for number, family in enumerate(families) for folder in find_runs(family)}
    places = [(m.split, m.sides, family_of.get(m.runs[0].folder.resolve())) for m in models]
    together: dict[tuple[str, str, int | None], list[PairFigures]] = {}  # pairs whose p-values are adjusted together
    for i, j in combinations(order, 2):
        if places[i] == places[j]:
            pair, remarks = _pair(models[i], models[j])
            notes += remarks
            together.setdefault(places[i], []).extend([pair] if pair else [])
    if len({(m.split, m.sides) for m in models}) > 1:
        notes.append("models on different splits are not compared with each other")
    notes += _official_means(models, figures)
    adjusted = [pair for pairs in together.values() for pair in _adjusted(pairs)]
    return CompareReport(
        models=tuple(figures[i] for i in order), pairs=tuple(adjusted), tried=len(adjusted), notes=tuple(notes)
    )


def _official_means(models: Sequence[Model[ScoredRun]], figures: Sequence[ModelFigures]) -> list[str]:
    """Return a note on the mean accuracy over UCF101's three official splits, which papers give.

    It is of models that have all three, with the same settings and seeds.
    """
    found: dict[Any, dict[str, ModelFigures]] = {}
    for model, told in zip(models, figures, strict=True):
        settings = {**model.first.model_settings, "split": "", "seeds": str(sorted(model.by_seed))}
        found.setdefault(tuple(settings.items()), {})[model.split] = told
    means = [
        f"{of[_OFFICIAL[0]].name} {np.mean([of[split].accuracy for split in _OFFICIAL]):.1%}"
        for of in found.values()
        if of.keys() >= set(_OFFICIAL)
    ]
    return [f"mean accuracy over {', '.join(_OFFICIAL)}: {', '.join(means)}"] if means else []


def _unfinished(runs: Sequence[ScoredRun]) -> list[str]:
    """Return notes on calls with seeds or folds that have no run yet, so that they are not taken for complete."""
    calls = sorted({run.folder.parent for run in runs if is_run_folder_name(run.folder.name)})
    return [
        f"{call} is not finished: {some([path.name for path in missing])} missing. Run the same train-head again"
        for call in calls
        if (missing := unfinished_in(call))
    ]


def _folder(folders: Sequence[Path]) -> str:
    """Return the folder that contains all runs of a model, relative to the working directory if it is below it.

    If the runs have no common folder, their names are returned.
    """
    common = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    if len(folders) > 1 and common == Path(common.anchor):
        return some([str(folder) for folder in folders])
    here = Path.cwd()
    return str(common.relative_to(here) if common.is_relative_to(here) else common)


def _figures(model: Model[ScoredRun], validated: Sequence[float], *, alone: bool) -> ModelFigures:
    """Return a model's metrics, given the validation accuracies of all models validated on the same clips, its own too.

    ``alone``: whether no other model was compared.
    """
    chosen = len(validated) > 1 and model.val_accuracy == max(validated)
    accuracies = [float(np.concatenate([r.right for r in runs]).mean()) for runs in model.by_seed.values()]
    right, tested, units = model.per_clip
    groups = {g for r in model.runs for g in r.groups}
    return ModelFigures(
        name=model.name,
        split=model.split,
        seeds=tuple(model.by_seed),
        folds=len(model.folds),
        n=len(units),
        n_groups=None if None in groups else len(groups),
        accuracies=tuple(accuracies),
        accuracy=float(right.sum() / tested.sum()),
        sd=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        val_accuracy=model.val_accuracy,
        val_ci95=model.val_interval,
        chosen=chosen,
        tied=chosen and validated.count(model.val_accuracy) > 1,
        apart=len(validated) == 1 and not alone,
        folder=_folder([r.folder for r in model.runs]),
        ci95=model.interval,
    )


def _pair(first: Model[ScoredRun], second: Model[ScoredRun]) -> tuple[PairFigures | None, list[str]]:
    """Compare two models on the runs they share; ``text`` and ``p_holm`` are filled in later."""
    ours, theirs = ({(r.seed, r.fold): r for r in m.runs} for m in (first, second))
    same = [key for key in ours if key in theirs and set(ours[key].clips) == set(theirs[key].clips)]
    notes = []
    what = f"{first.name} and {second.name}"
    if differing := [key for key in ours if key in theirs and key not in same]:
        seed, fold = differing[0]
        one, other = set(ours[differing[0]].clips), set(theirs[differing[0]].clips)
        where = f"seed {seed}" + f", fold {fold}" * bool(fold)
        notes.append(
            f"{what} have different test clips in {plural(len(differing), 'run')} ({where}: "
            f"{len(one)} and {len(other)}, {len(one & other)} in common): not compared on these"
        )
    if alone := len(set(ours) ^ set(theirs)):
        notes.append(f"{what}: {plural(alone, 'run')} without a counterpart of the same seed and fold: left out")
    if not same:
        return None, notes[:1] if differing else [f"{what} share no run of the same seed and fold: not compared"]
    shared = [ours[key] for key in same]
    right_a, tested, units = per_clip(shared)
    right_b, _, units_b = per_clip([theirs[key] for key in same])
    place = {clip: i for i, clip in enumerate(units_b)}
    # One of the models may have been trained before groups were known.
    units = {clip: units_b[clip] if unit == alone_unit(clip) else unit for clip, unit in units.items()}
    if n := sum(alone_unit(clip) != units_b[clip] != unit for clip, unit in units.items()):
        notes.append(f"{what} name other groups of {n} test clips: those of {first.name} are taken")
    gain = right_a - right_b[[place[clip] for clip in units]]
    if gain.sum() < 0:
        first, second, gain = second, first, -gain
    only_a, only_b = int((gain > 0).sum()), int((gain < 0).sum())
    difference = float(gain.sum() / tested.sum())
    interval = interval_of_difference(gain, tested, list(units.values()))
    pair = PairFigures(
        a=first.name,
        b=second.name,
        split=first.split,
        n=len(units),
        folds=len({fold for _, fold in same}),
        seeds=tuple(sorted({seed for seed, _ in same})),
        difference=difference,
        ci95=widened(interval, difference, shared),
        only_a=only_a,
        only_b=only_b,
        by="fold" if rule_of(first.split).by_fold else "group" if len(set(units.values())) < len(units) else "clip",
        differing=int(np.count_nonzero(gains_by_unit(gain, list(units.values())))),
        p=exact_p(gain, list(units.values())),
        p_holm=1.0,
        claim="",
        text="",
    )
    return pair, notes


def _adjusted(pairs: Sequence[PairFigures]) -> list[PairFigures]:
    """Return pairs on the same sides with p-values adjusted for multiple tests, and the results in words."""
    found, p_values = [], [pair.p for pair in pairs]
    for pair, p_holm in zip(pairs, holm(p_values), strict=True):
        left = sum(p >= pair.p for p in p_values)  # the factor of Holm's adjustment
        found.append(_in_words(pair, p_holm, least=left * 2.0 ** (1 - pair.differing)))
    return found


def _in_words(pair: PairFigures, p_holm: float, *, least: float) -> PairFigures:
    """Return the pair with its adjusted p-value and the result in words.

    ``least``: the p-value if all units that differ were in favour of the same model.
    """
    low, high = pair.ci95
    points, span = f"{100 * pair.difference:.1f} points", f"95 % {100 * low:.1f} to {100 * high:.1f}"
    n = f"n = {pair.n}" + f" in {pair.folds} folds" * (pair.folds > 1)
    n += f", {len(pair.seeds)} seeds" * (len(pair.seeds) > 1)
    where = f"on split {pair.split}"
    if p_holm < LEVEL and low > 0:
        claim, rest = f"{pair.a} beats {pair.b} by {points}", f"{span}, {n}"
    else:
        claim, rest = f"{pair.a} and {pair.b} are not distinguishable at {n}", f"{points}, {span}"
        if pair.differing == 0:
            claim += f": no {pair.by} has more right by one of them"
        elif least >= LEVEL:
            claim += f": they differ in only {plural(pair.differing, pair.by)}, too few to tell"
    return replace(pair, p_holm=p_holm, claim=claim, text=f"{claim} ({rest}, p = {p_holm:.2g}) {where}")
