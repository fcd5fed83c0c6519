"""Stage two: train a head on cached features. Nothing here knows video: neither PyAV nor timm is loaded."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fitrec_cache.answers import write_answers
from fitrec_cache.arguments import plain_arguments
from fitrec_cache.calibrate import FALSE_ALARM_RATE, remarks
from fitrec_cache.devices import check_jobs, cores, find_device
from fitrec_cache.errors import StoreCorrupt, UsageError, unknown_name
from fitrec_cache.features import Features
from fitrec_cache.files import remove_unfinished, write_json
from fitrec_cache.fit import with_precision
from fitrec_cache.folds import make_folds, values_of
from fitrec_cache.leaks import UNLOOKED, Verdict, verdict
from fitrec_cache.loading import keep_apart, load_clips
from fitrec_cache.meanwhile import Meanwhile
from fitrec_cache.near_duplicates import NearDuplicates
from fitrec_cache.progress import Notes, timed
from fitrec_cache.recipes import Recipe, get_recipe
from fitrec_cache.results import TrainReport, average_runs, pool_folds, read_result
from fitrec_cache.run_files import read_run_json
from fitrec_cache.runs import ANSWERS, SUMMARY, calibration_of, check_out, keep_contents, refuse_other_runs
from fitrec_cache.scored import read_scored
from fitrec_cache.splits import Split, check_seed, check_seeds, say_untrained
from fitrec_cache.together import keep_calibration
from fitrec_cache.trainer import Job, Trainer
from fitrec_cache.variants import get_variant


@plain_arguments
def train_head(
    *,
    out: Path,
    cache: Path | None = None,
    features: Path | Features | None = None,
    variant: str = "resnet50-lstm-attention",
    backbone: Sequence[str] = (),
    preset: str | None = None,
    classes: str | None = None,
    split: str = "auto",
    seed: Sequence[int] = (0,),
    split_seed: int | None = None,
    attention: str | None = None,
    recipe: str = "native",
    epochs: int | None = None,
    patience: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    settings: Sequence[str] = (),
    unknown: Sequence[str] = (),
    false_alarm_rate: float = FALSE_ALARM_RATE,
    device: str = "cpu",
    final: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> TrainReport:
    """Train one head per seed (and fold) on cached features, and test each once.

    The validation side says which epoch to keep; temperature and the threshold for "unknown" are fitted there too.
    The recipe ``native`` then trains once more on training and validation clips together, for that many epochs, and
    tests that head. The test side is looked at only after all of this. A call that was interrupted goes on
    where it was: runs that are whole and were made by the same settings are kept. ``answers.csv`` in ``out`` has what
    every test clip was answered, by every run. From then on this process keeps the memory that it frees
    (:mod:`fitrec_cache.memory`).

    Args:
        out: Run folder; with several seeds or folds it holds one run folder each.
        cache: Cache folder that ``extract`` made; this or ``features``.
        features: One HDF5 file of features, from ``pack`` or made elsewhere; or clips in memory, as
            :func:`fitrec_cache.loading.load_clips` gives them for several calls on the same.
        variant: A key of :data:`fitrec_cache.variants.VARIANTS`.
        backbone: Which cached features; several are put side by side. Empty: the variant's own.
        preset: ``native``, ``grid``, ``paper`` or ``table1``, where the cache holds several.
        classes: Learn some of the cached classes only: as for :func:`fitrec_cache.find_clips.find_clips`.
        split: ``auto`` (``group`` where any are known), ``group``, ``random``, ``official1`` to ``official3``,
            ``list:TRAIN,TEST``, ``manifest`` (its column ``split``), or with every clip tested once ``kfold:K`` and
            ``leave-one:COLUMN``.
        seed: Seeds of split, initial values and order of batches; one run each.
        split_seed: Seed of the split of all runs, in place of each run's own: they then test the same clips, so that
            what they answer together is tested too.
        attention: ``additive`` (Eq. 9), ``dot`` or ``none``; None for the variant's own.
        recipe: ``paper`` or ``native``; see :data:`fitrec_cache.recipes.RECIPES`.
        epochs: At most this many; None for the recipe's.
        patience: Stop after this many epochs without a lower validation loss; None for the recipe's.
        learning_rate: Of Adam; None for the recipe's.
        batch_size: Clips per step; None for the recipe's.
        settings: Further recipe settings as ``NAME=VALUE``, such as ``dropout=0.5``.
        unknown: Classes that are kept from all sides, to see how many of their clips are answered "unknown".
        false_alarm_rate: Share of clips of new recordings that the threshold for "unknown" may turn away, in [0, 1).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``: where the head is trained. On the CPU a seed gives
            the same bits every time; for another device a note says that it may not.
        final: Train once more on the clips of all sides, for as many epochs. ``predict`` and ``watch``
            answer by that head; all figures are of the one that was tested, as no clip is left to test this one on.
        overwrite: Replace a run that is there.
        jobs: Heads of several seeds or folds to train at the same time, in processes that divide the threads
            between them; one that is left alone at the end has all. It pays where there are many cores and training is
            long (docs/performance.md). A seed's last bits are those of its number of threads, which ``run.json`` has.
        progress: Show a progress bar on standard error.
        tell: Called with each note of the report as soon as it is known, most of them before anything is trained.

    Returns:
        One result a seed and fold.

    Raises:
        UsageError: For wrong arguments, or data that cannot be split so.
        StoreError: If the cache cannot be read or a run cannot be written.
    """
    get_variant(variant)  # there is one of that name
    named = {"epochs": epochs, "patience": patience, "learning_rate": learning_rate, "batch_size": batch_size}
    given = {name: value for name, value in named.items() if value is not None}
    given |= _further(settings, given)
    usual = get_recipe(recipe)
    chosen = usual.change(**given)
    if variant == "convlstm" and chosen.draw:
        raise UsageError(f"draw is {chosen.draw}, but convlstm needs all frames of a clip: leave it at 0")
    check_seeds(seed)
    if split_seed is not None:
        check_seed(split_seed)
    _check_rate(false_alarm_rate)
    where = torch.device(find_device(device))
    check_jobs(jobs, where)
    started, meanwhile = time.perf_counter(), Meanwhile(min(torch.get_num_threads(), cores()))
    data = load_clips(cache, features, variant, backbone, preset, classes=classes, unknown=unknown, progress=progress)
    data, strangers = keep_apart(data, unknown)
    split_seeds = seed if split_seed is None else [split_seed]
    made = {s: make_folds(split, **data.columns, seed=s) for s in split_seeds}  # of many folds it takes seconds
    folds = [(s, fold) for s in seed for fold in made[s if split_seed is None else split_seed]]
    if final and folds[0][1].name:
        raise UsageError(f"--final with --split {split} would train the same head for each fold: give one split")
    chosen, left_out = _settle(usual, chosen, given, variant, attention, where)
    trainer = Trainer(
        out=out,
        data=data,
        strangers=strangers,
        variant=variant,
        attention=attention,
        recipe=chosen,
        recipe_name=recipe,
        false_alarm_rate=false_alarm_rate,
        device=where,
        data_sha256=data.digest,
        split_seed=split_seed,
        some_classes=classes is not None,
        overwrite=overwrite,
        progress=progress,
    )
    stages = {"load": time.perf_counter() - started, "train": 0.0, "write": 0.0}
    folders = _folders(out, [(fold.name, s) for s, fold in folds])
    refuse_other_runs(out, folders)
    for folder in {out, *folders}:
        remove_unfinished(folder)
    heads = [Job(fold, s, folder, final) for (s, fold), folder in zip(folds, folders, strict=True)]
    heads = [_looked_up(job, trainer.describe(job), overwrite=overwrite) for job in heads]
    for job in heads:
        if job.there is not None:  # it is whole, or lacks its final head
            keep_contents(job.folder, trainer.contents(job))
    with timed(stages, "look for leaks"):
        near = data.near_duplicates(progress=progress)
    notes = Notes(tell)
    judged = [(job, verdict(job.fold.split, data.groups, near)) for job in heads]
    leaks, verdicts = any(said.leaks for _, said in judged), _verdicts(judged, data.groups, near)
    told, untrained = _fold_notes(heads, shared=split_seed is not None or len(seed) == 1)
    notes.add(*data.notes, *left_out, *told, *untrained, *verdicts)
    if cache is not None and any(said.near_duplicate for _, said in judged):
        notes.add(_how_to_look(cache, split, data.groups, classes))
    notes.add(*_shared_values(split, [job.fold.split for job in heads], data), *_there_notes(heads))
    notes.add(*_device_notes(where))
    fresh = iter(trainer.run_all([job for job in heads if job.state != "whole"], jobs, stages))
    runs = [job.there if job.there and job.state == "whole" else next(fresh) for job in heads]
    with timed(stages, "write"):
        columns = [] if strangers is None else [strangers.clip_ids, strangers.groups, strangers.labels]
        scored = [read_scored(folder) for folder in folders]
        write_answers(scored, out / ANSWERS, list(zip(*columns, strict=True)))
    if final:
        on_sides = sum(map(len, heads[0].fold.split.sides))
        notes.add(
            f"predict and watch use heads trained on all {on_sides} clips; the figures are of heads trained without "
            "the test clips"
        )
    notes.add(*remarks([(calibration_of(one.run), one.val_units) for one in scored]))
    pooled, (ensemble, together) = pool_folds(scored), average_runs(scored)
    if together is not None:
        keep_calibration(scored, together)
    if len(runs) > 1 and not pooled and not ensemble:
        notes.add(
            "the seeds test different clips, so what they answer together, as predict does, is not tested: another "
            "--out with --split-seed 0 gives them the same"
        )
    if ensemble and ensemble["temperature"] is None:
        notes.add(
            "the seeds were validated on different clips, so what they answer together has no temperature of its own "
            "and is rather too modest: another --out with --split-seed 0 gives them the same"
        )
    report = TrainReport(
        runs=tuple(runs),
        pooled=pooled,
        ensemble=ensemble,
        final=all(r.run.get("final") for r in scored),
        leaks=leaks,
        wrong=(*untrained, *(verdicts if leaks else ())),
        notes=tuple(notes.texts),
        stages=stages,
        others=meanwhile.others(),
    )
    if len(runs) > 1:
        write_json(out / SUMMARY, report.to_dict())
    return report


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Turn ``NAME=VALUE`` texts into recipe settings of the right types.

    Raises:
        UsageError: If a text is not of that form, the name is unknown or the value has another type.
    """
    known = Recipe().to_dict()
    found: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text!r}: expected NAME=VALUE, such as dropout=0.5")
        if name not in known:
            raise unknown_name("recipe setting", name, known)
        kind = type(known[name])
        try:
            found[name] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError) as error:
            what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise UsageError(f"--set {text!r}: expected {what}") from error
    return found


def _further(settings: Sequence[str], named: Collection[str]) -> dict[str, Any]:
    """Read ``--set``, which may not set again what has an option of its own and was given there."""
    found = read_settings(settings)
    if twice := sorted(set(found) & set(named)):
        raise UsageError(f"{twice[0]} is given twice, by its own option and by --set: give it once")
    return found


def _check_rate(false_alarm_rate: float) -> None:
    if not 0 <= false_alarm_rate < 1:
        raise UsageError(f"false_alarm_rate is {false_alarm_rate}: expected a share of at least 0 and below 1")


def _folders(out: Path, jobs: Sequence[tuple[str, int]]) -> list[Path]:
    """Return each job's folder: ``out`` itself for one, ``out/seed-N`` or ``out/fold-F-seed-N`` for several."""
    if len(jobs) == 1:
        return [out]
    slugs = [f"fold-{re.sub(r'[^A-Za-z0-9_.-]+', '_', fold)[:60]}-" if fold else "" for fold, _ in jobs]
    return [out / f"{slug}seed-{seed}" for slug, (_, seed) in zip(slugs, jobs, strict=True)]


def _looked_up(job: Job, described: dict[str, Any], *, overwrite: bool) -> Job:
    """Return the job with what is there of it; see :func:`fitrec_cache.runs.check_out`, here figures count, too."""
    state = check_out(job.folder, described, overwrite=overwrite)
    try:
        there = read_result(job.folder) if state in ("tested", "whole") else None
    except StoreCorrupt:
        state, there = "damaged", None
    if state == "damaged":  # a final head that it had is made again too
        had = bool(read_run_json(job.folder / "run.json").get("final"))
        return replace(job, state=state, final=job.final or had)
    return replace(job, state=state, there=there)


def _settle(
    usual: Recipe, wanted: Recipe, given: dict[str, Any], variant: str, attention: str | None, device: torch.device
) -> tuple[Recipe, list[str]]:
    """Return the recipe with what was given, less what changes nothing here, and notes of that."""
    idle = wanted.idle(variant, attention)
    chosen = usual.change(**{name: value for name, value in given.items() if name not in idle})
    chosen = with_precision(chosen, device, variant)
    if chosen.precision != given.get("precision", "auto") == "bf16":
        idle["precision"] = f"for variant {variant} on {device}"
    changed = {name for name, value in given.items() if value != getattr(usual, name)}
    return chosen, [f"{name} changes nothing {idle[name]}: left out" for name in given if name in idle.keys() & changed]


def _there_notes(jobs: Sequence[Job]) -> list[str]:
    """Say how much was there already."""
    notes = []
    if kept := sum(job.there is not None for job in jobs):
        notes.append(f"{kept} of {len(jobs)} runs were there already, made by the same settings: kept")
    if damaged := [job.folder for job in jobs if job.state == "damaged"]:
        notes.append(
            f"{len(damaged)} of {len(jobs)} runs had missing or damaged files, such as {damaged[0]}: trained again"
        )
    return notes


def _device_notes(device: torch.device) -> list[str]:
    if device.type == "cpu":
        return []
    return [f"trained on {device}: there the same seed may give other last bits; on the CPU it gives the same"]


def _shared_values(rule: str, splits: Sequence[Split], data: Features) -> list[str]:
    """Say if validation clips are of rooms, or whatever else is left out in turns, that training has too."""
    kind, _, column = rule.partition(":")
    if kind != "leave-one":
        return []
    values = values_of(column, data.groups, data.extra)
    sides = [({values[i] for i in split.val.tolist()}, {values[i] for i in split.train.tolist()}) for split in splits]
    if not any(val & train for val, train in sides):
        return []
    return [
        f"validation clips are of a {column} that training has too: probabilities and the threshold for 'unknown' are "
        f"fitted to what is known, so answers of another {column} are surer than they are right"
    ]


def _how_to_look(cache: Path, split: str, groups: Sequence[str | None], classes: str | None) -> str:
    """Return what to call where near-duplicates are on both sides of a split."""
    words = ["fitrec-cache", "audit", "--cache", str(cache)]
    if None in groups:
        propose = shlex.join([*words, "--manifest", "groups.csv"])
        return f"`{propose}` proposes groups that keep near-duplicates on one side"
    words += [] if split == "auto" else ["--split", split]  # groups that are known count for more
    words += [] if classes is None else ["--classes", classes]
    return f"`{shlex.join([*words, '--out', 'audit'])}` shows which clips look alike"


def _verdicts(
    judged: Sequence[tuple[Job, Verdict]], groups: Sequence[str | None], near: NearDuplicates | None
) -> list[str]:
    """Return whether each split leaks, in one line; of many folds those that leak, and how many do not."""
    if not judged[0][0].fold.name:
        texts = [said.text for _, said in judged]
        if len(set(texts)) == 1:  # as of lists, which have the same sides whatever the seed
            return texts[:1]
        return [f"seed {job.seed}: {said.text}" for job, said in judged]
    lines = [f"fold {job.fold.name}, seed {job.seed}: {said.text}" for job, said in judged if said.leaks]
    sound = len(judged) - len(lines)
    missing = sum(group is None for group in groups)
    unknown = f"; the group of {missing} of {len(groups)} clips is unknown" if missing else ""
    unknown = "; groups are unknown" if missing == len(groups) else unknown
    unlooked = f"; {UNLOOKED}" if near is None else ""
    summary = f"no leak found in {sound} of {len(judged)} folds" if sound else f"all {len(judged)} folds leak"
    return [*lines, f"{summary}{unknown}{unlooked}"]


def _fold_notes(jobs: Sequence[Job], *, shared: bool) -> tuple[list[str], list[str]]:
    """Return the notes of all splits, and which classes some cannot learn, each thing once.

    Of many folds only the latter: each lacks some classes to test. Where all seeds share a split, none is named.
    """
    notes, untrained = [], []
    for job in jobs:
        name, split = job.fold.name, job.fold.split
        prefix = f"fold {name}: " if name else "" if shared else f"seed {job.seed}: "
        notes += [prefix + note for note in split.notes if not name]
        untrained += [prefix + note for note in say_untrained(split.untrained)]
    return list(dict.fromkeys(notes)), list(dict.fromkeys(untrained))
