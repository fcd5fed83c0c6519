"""Which of several models is better, and whether the test clips suffice to say so."""

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
from fitrec_cache.dataset.units import alone_unit, is_by_fold
from fitrec_cache.evaluation.paired import exact_p, gains_by_unit, holm, interval_of_difference
from fitrec_cache.runs.run_files import find_runs, unfinished_in
from fitrec_cache.runs.scored import Model, ScoredRun, gather_models, per_clip, read_scored
from fitrec_cache.wording import plural, some

LEVEL = 0.05
"""Chance of calling any pair of one split different if all are equally good."""


@dataclass(frozen=True, kw_only=True)
class ModelFigures(Plain):
    """What one model is worth on its test clips.

    Attributes:
        name: Variant, backbone, and settings in which the compared models differ.
        split: Split rule.
        seeds: Its seeds.
        folds: Number of folds of each seed.
        n: Number of test clips, different ones.
        n_groups: Number of groups these are of; None where not every group is known.
        accuracies: Accuracy of each seed, over all its folds.
        accuracy: Over all tests of all seeds; where seeds test as many clips, the mean of ``accuracies``.
        sd: Standard deviation of ``accuracies``; None of one seed.
        val_accuracy: Mean over its runs of the accuracy on validation clips, by heads that never learned from them.
        val_ci95: 95 % interval of the share of right answers on validation clips, as ``ci95``; those of all runs count
            together, however many a run has.
        chosen: Whether the former is the highest of those that were validated on the same clips, if there are
            others: what to choose a model by, as what is chosen on test clips has seen them.
        tied: Whether it is the highest of several.
        apart: Whether others were compared, but none validated on the same clips.
        folder: The folder that its runs are in.
        ci95: 95 % interval of the accuracy; see :func:`fitrec_cache.evaluation.metrics.interval_by_unit`. Units are
            groups, under ``leave-one`` folds, and clips where groups are unknown.
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
        a: The better one's name, by the shared runs.
        b: The other's.
        split: Split rule of both.
        n: Test clips that both were tested on; 0 if they share none.
        folds: Number of folds of each seed.
        seeds: Seeds that both have, with the same test clips.
        difference: Accuracy of ``a`` less that of ``b`` over these, in ``[0, 1]``.
        ci95: Of the difference; see :func:`fitrec_cache.evaluation.paired.interval_of_difference`.
        only_a: Clips that ``a`` has right more often than ``b`` (over the seeds).
        only_b: The other way round.
        by: What was taken together: ``fold``, ``group``, or ``clip``.
        differing: In how many of these one model has more right than the other.
        p: Exact McNemar test over all seeds, clips taken together as ``by`` says;
            :func:`fitrec_cache.evaluation.paired.exact_p`.
        p_holm: ``p`` adjusted for all pairs compared on the same sides (of one family).
        claim: The result in words.
        text: The same with what it rests on.
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
    """What :func:`compare` found.

    Attributes:
        models: One entry a model, the best first within each split rule.
        pairs: One entry a pair of models with the same split rule and the same test clips.
        tried: Number of pairs compared; p-values are adjusted for the number on the same sides.
        notes: What a person should know, such as pairs that could not be compared.
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
    whose test clips are the same. One model is said to beat the other if the adjusted p-value is below 0.05 and the
    interval of the difference does not hold zero; both take clips of one group together, under ``leave-one`` those of
    one fold, as they are not independent.

    Args:
        runs: Run folders, or folders that hold some.
        out: File to write, ``.md`` or ``.csv``; one that exists is replaced.
        families: Some of the runs each: only models of one family are compared, and p-values are adjusted within it.

    Returns:
        Figures of each model and each pair.

    Raises:
        UsageError: If there is no run, one that cannot be compared, or ``out`` has another ending or is another file.
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
    """Compare models by runs that were read; see :func:`compare`."""
    models, notes = gather_models(runs)
    notes += _unfinished(runs)
    alike = _alike_on_validation(models)
    shared = {i for some in alike for i in some}
    best: dict[int, int] = {}  # those that are the highest of some, and of how many such
    for numbers in alike:
        highest = max(models[i].val_accuracy for i in numbers)
        equal = [i for i in numbers if models[i].val_accuracy == highest]
        best |= dict.fromkeys(equal, len(equal))
    figures = [
        _figures(m, chosen=i in best, tied=best.get(i, 1) > 1, apart=len(models) > 1 and i not in shared)
        for i, m in enumerate(models)
    ]
    order = sorted(range(len(models)), key=lambda i: (figures[i].split, -figures[i].accuracy))
    family_of = {folder.resolve(): number for number, family in enumerate(families) for folder in find_runs(family)}
    places = [(m.split, m.sides, family_of.get(m.runs[0].folder.resolve())) for m in models]
    together: dict[tuple[str, str, int | None], list[PairFigures]] = {}  # pairs on the same clips are tested together
    for i, j in combinations(order, 2):
        if places[i] == places[j]:
            pair, remarks = _pair(models[i], models[j])
            notes += remarks
            together.setdefault(places[i], []).extend([pair] if pair else [])
    if len({(m.split, m.sides) for m in models}) > 1:
        notes.append("models on different splits are not compared with each other")
    adjusted = [pair for pairs in together.values() for pair in _adjusted(pairs)]
    return CompareReport(
        models=tuple(figures[i] for i in order), pairs=tuple(adjusted), tried=len(adjusted), notes=tuple(notes)
    )


def _unfinished(runs: Sequence[ScoredRun]) -> list[str]:
    """Say of which calls some seeds or folds are no runs yet, so that what is there is not taken for all."""
    calls = sorted({run.folder.parent for run in runs if run.folder.name.startswith(("seed-", "fold-"))})
    return [
        f"{call} is not finished: {some([path.name for path in missing])} missing. Run the same train-head again"
        for call in calls
        if (missing := unfinished_in(call))
    ]


def _alike_on_validation(models: Sequence[Model[ScoredRun]]) -> list[list[int]]:
    """Return the numbers of the models that were validated on the same clips as others."""
    alike: dict[Any, list[int]] = {}
    for number, model in enumerate(models):
        alike.setdefault(model.validated_on, []).append(number)
    return [some for some in alike.values() if len(some) > 1]


def _folder(folders: Sequence[Path]) -> str:
    """Return the folder that all runs of a model are in, from where we are if it is below; of several the names."""
    common = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    if len(folders) > 1 and common == Path(common.anchor):
        return some([str(folder) for folder in folders])
    here = Path.cwd()
    return str(common.relative_to(here) if common.is_relative_to(here) else common)


def _figures(model: Model[ScoredRun], *, chosen: bool, tied: bool, apart: bool) -> ModelFigures:
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
        tied=tied,
        apart=apart,
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
        common = len(set(ours[differing[0]].clips) & set(theirs[differing[0]].clips))
        where = f"seed {seed}" + f", fold {fold}" * bool(fold)
        notes.append(
            f"{what} have different test clips in {plural(len(differing), 'run')} ({where}: "
            f"{len(ours[differing[0]].clips)} and {len(theirs[differing[0]].clips)}, {common} in common): not compared "
            "on these"
        )
    if alone := len(set(ours) ^ set(theirs)):
        notes.append(f"{what}: {plural(alone, 'run')} without a counterpart of the same seed and fold: left out")
    if not same:
        return None, notes[:1] if differing else [f"{what} share no run of the same seed and fold: not compared"]
    right_a, tested, units = per_clip([ours[key] for key in same])
    right_b, _, units_b = per_clip([theirs[key] for key in same])
    place = {clip: i for i, clip in enumerate(units_b)}
    # One of them may have been trained before groups were known.
    units = {clip: units_b[clip] if unit == alone_unit(clip) else unit for clip, unit in units.items()}
    if n := sum(alone_unit(clip) != units_b[clip] != unit for clip, unit in units.items()):
        notes.append(f"{what} name other groups of {n} test clips: those of {first.name} are taken")
    gain = right_a - right_b[[place[clip] for clip in units]]
    if gain.sum() < 0:
        first, second, gain = second, first, -gain
    only_a, only_b = int((gain > 0).sum()), int((gain < 0).sum())
    pair = PairFigures(
        a=first.name,
        b=second.name,
        split=first.split,
        n=len(units),
        folds=len({fold for _, fold in same}),
        seeds=tuple(sorted({seed for seed, _ in same})),
        difference=float(gain.sum() / tested.sum()),
        ci95=interval_of_difference(gain, tested, list(units.values())),
        only_a=only_a,
        only_b=only_b,
        by="fold" if is_by_fold(first.split) else "group" if len(set(units.values())) < len(units) else "clip",
        differing=int(np.count_nonzero(gains_by_unit(gain, list(units.values())))),
        p=exact_p(gain, list(units.values())),
        p_holm=1.0,
        claim="",
        text="",
    )
    return pair, notes


def _adjusted(pairs: Sequence[PairFigures]) -> list[PairFigures]:
    """Return pairs on the same sides with p-values for having tried them all, and the results in words."""
    found, p_values = [], [pair.p for pair in pairs]
    for pair, p_holm in zip(pairs, holm(p_values), strict=True):
        left = sum(p >= pair.p for p in p_values)  # by how much Holm multiplies it
        found.append(_in_words(pair, p_holm, least=left * 2.0 ** (1 - pair.differing)))
    return found


def _in_words(pair: PairFigures, p_holm: float, *, least: float) -> PairFigures:
    """Return the pair with its adjusted p-value and the result in words.

    ``least``: the p-value if all units that differ spoke for the same model.
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
