"""Stage two: train heads on cached features. It needs no video: neither PyAV nor timm is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.cpu_contention import CpuContention
from fitrec_cache.common.devices import check_jobs, cores, find_device, keep_to_cores
from fitrec_cache.common.files import make_folder, refuse_others, remove_unfinished, write_json
from fitrec_cache.common.progress import Notes, timed
from fitrec_cache.common.threads import all_threads, threads_beside_others, threads_set_to
from fitrec_cache.dataset.folds import Fold, make_folds
from fitrec_cache.dataset.rules import check_rule, column_digest
from fitrec_cache.dataset.splits import check_seed, check_seeds
from fitrec_cache.errors import StoreCorrupt, UsageError
from fitrec_cache.evaluation.calibration import FALSE_ALARM_RATE
from fitrec_cache.features import Features
from fitrec_cache.runs.answers import write_answers, write_joint_answers
from fitrec_cache.runs.ensemble import keep_calibration
from fitrec_cache.runs.results import TrainReport, average_runs, pool_folds, read_result
from fitrec_cache.runs.run import ANSWERS, SUMMARY, TOGETHER, check_out, keep_column, refuse_other_runs
from fitrec_cache.runs.run_files import read_run_json, run_folder_name
from fitrec_cache.runs.scored import read_scored
from fitrec_cache.settings.recipes import Recipe, get_recipe, given_settings
from fitrec_cache.settings.variants import get_variant
from fitrec_cache.training.fit import with_precision
from fitrec_cache.training.loading import keep_apart, load_clips
from fitrec_cache.training.train_notes import answer_notes, device_notes, final_note, judge_splits, there_notes
from fitrec_cache.training.trainer import Job, Trainer
from fitrec_cache.wording import command, options


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

    Temperature and the threshold for "unknown" are fitted on the validation side; the recipe ``paper`` also takes from
    it the epoch to keep. The recipe ``native`` then trains a new head on training and validation clips together, and
    tests that head. The test side is not used until all of this is done. An interrupted call is resumed: complete
    runs made with the same settings are kept. ``answers.csv`` in ``out`` has the answer of every run for every test
    clip. After this call the process keeps freed memory for reuse (:mod:`fitrec_cache.common.memory`).

    Args:
        out: Run folder; with several seeds or folds it contains one run folder for each.
        cache: Cache folder made by ``extract``; give this or ``features``.
        features: One HDF5 file of features, from ``pack`` or made elsewhere; or clips in memory, as
            :func:`fitrec_cache.training.loading.load_clips` returns them, for several calls on the same clips.
        variant: A key of :data:`fitrec_cache.settings.variants.VARIANTS`.
        backbone: Backbones whose cached features are used; those of several are concatenated. Empty: the variant's own.
        preset: ``native``, ``grid``, ``paper`` or ``table1``, if the cache has several.
        classes: Use only some of the cached classes; see :func:`fitrec_cache.dataset.find_clips.find_clips`.
        split: ``auto`` (``group`` if any groups are known), ``group``, ``random``, ``official1`` to ``official3``,
            ``list:TRAIN,TEST``, ``manifest`` (its column ``split``), or, with every clip tested once, ``kfold:K``,
            ``folds:COLUMN`` and ``leave-one:COLUMN``.
        seed: Seeds of the split, the initial weights and the batch order; one run for each.
        split_seed: One seed for the split of all runs instead of each run's own: all runs then test the same clips, so
            that their joint answer is tested too.
        attention: ``additive`` (Eq. 9), ``dot`` or ``none``; None for the variant's own.
        recipe: ``paper`` or ``native``; see :data:`fitrec_cache.settings.recipes.RECIPES`.
        epochs: The greatest number of epochs; None for the recipe's.
        patience: Stop after this many epochs without a lower validation loss; None for the recipe's.
        learning_rate: Learning rate of Adam; None for the recipe's.
        batch_size: Clips per step; None for the recipe's.
        settings: Further recipe settings as ``NAME=VALUE``, such as ``dropout=0.5``.
        unknown: Classes that are held out from all sides, to measure how many of their clips are answered "unknown".
        false_alarm_rate: Share of clips of new recordings that the threshold for "unknown" may reject, in [0, 1).
        device: Device to train on: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. On the CPU a seed gives the same
            bits every time; on other devices it may not, and a note says so.
        final: Train a final head on the clips of all sides, for the same number of epochs. ``predict`` and ``watch``
            use that head; all metrics belong to the tested head, because no clips are left to test the final one.
        overwrite: Replace an existing run.
        jobs: Number of heads (seeds or folds) to train in parallel, in processes that divide the threads among them; a
            single head left at the end gets all threads. Useful with many cores and long training
            (docs/performance.md). The last bits of a result depend on the number of threads, stored in ``run.json``.
        progress: Show a progress bar on standard error.
        tell: Called with each note of the report as soon as it is known, most of them before anything is trained.

    Returns:
        One result per seed and fold.

    Raises:
        UsageError: For wrong arguments, or data that cannot be split in this way.
        StoreError: If the cache cannot be read or a run cannot be written.
    """
    head = get_variant(variant)
    short = {"epochs": epochs, "patience": patience, "learning_rate": learning_rate, "batch_size": batch_size}
    usual, given = get_recipe(recipe), given_settings(short, settings)
    wanted = usual.change(**given)
    if head.needs_all_frames and wanted.draw:
        raise UsageError(f"draw is {wanted.draw}, but {variant} needs all frames of a clip: leave it at 0")
    check_rule(split)
    check_seeds(seed)
    if split_seed is not None:
        check_seed(split_seed)
    if not 0 <= false_alarm_rate < 1:
        raise UsageError(f"false_alarm_rate is {false_alarm_rate}: expected a share of at least 0 and below 1")
    where = torch.device(find_device(device))
    check_jobs(jobs, str(where))
    keep_to_cores()  # before processes divide the threads among them
    started, contention = time.perf_counter(), CpuContention(min(torch.get_num_threads(), cores()))
    data = load_clips(cache, features, variant, backbone, preset, classes=classes, unknown=unknown, progress=progress)
    data, strangers = keep_apart(data, unknown)
    folds = _folds(data, split, seed, split_seed)
    if final and folds[0][1].name:
        raise UsageError(f"--final with --split {split} would train the same head for each fold: give one split")
    chosen, left_out = _settle(usual, wanted, given, variant, attention, where)
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
        data_sha256=data.digest(),
        column_sha256=column_digest(split, data.clip_ids, data.groups, data.extra),
        split_seed=split_seed,
        some_classes=classes is not None,
        overwrite=overwrite,
        progress=progress,
    )
    stages = {"load": time.perf_counter() - started, "train": 0.0, "write": 0.0}
    heads = _heads(trainer, folds, final=final)
    with timed(stages, "look for leaks"):
        near = data.near_duplicates(progress=progress)
    features_of = [source["identity"]["backbone"] for source in data.sources if source["kind"] == "features"]
    look = partial(
        _how_to_look,
        cache=cache,
        split=split,
        groups=data.groups,
        classes=",".join(sorted(set(data.labels))) if unknown else classes,
        backbone=backbone or features_of,
        preset=preset,
        split_seed=split_seed,
    )
    found = judge_splits(heads, data, near, look=look)
    notes = Notes(tell)
    notes.add(*data.notes, *left_out, *found.notes, *there_notes(heads), *device_notes(where))
    missing = [job for job in heads if job.state != "whole"]
    threads = threads_beside_others(contention) if missing and where.type == "cpu" else all_threads()
    notes.add(*threads.notes)
    with threads_set_to(threads.number):
        fresh = iter(trainer.run_all(missing, jobs, stages))
    runs = [job.there if job.there and job.state == "whole" else next(fresh) for job in heads]
    with timed(stages, "write"):
        if trainer.column_sha256:
            for job in heads:
                if job.there:
                    keep_column(job.folder, trainer.column_sha256)
        scored = [read_scored(job.folder) for job in heads]
        columns = [] if strangers is None else [strangers.clip_ids, strangers.groups, strangers.labels]
        held_out = list(zip(*columns, strict=True))
        write_answers(scored, out / ANSWERS, held_out)
    pooled, (averaged, ensemble) = pool_folds(scored), average_runs(scored)
    if ensemble is not None:
        keep_calibration(scored, ensemble)
        write_joint_answers(scored, ensemble, out / TOGETHER, held_out)
    elif len(runs) > 1:
        (out / TOGETHER).unlink(missing_ok=True)  # of an earlier call
    if final:
        notes.add(final_note(sum(map(len, folds[0][1].split.sides))))
    notes.add(*answer_notes(scored, pooled, averaged))
    report = TrainReport(
        runs=tuple(runs),
        pooled=pooled,
        ensemble=averaged,
        final=all(r.run_json.get("final") for r in scored),
        leaks=found.leaks,
        wrong=found.wrong,
        notes=tuple(notes.texts),
        stages=stages,
        threads=threads.number,
        others=contention.others(),
    )
    if len(runs) > 1:
        write_json(out / SUMMARY, report.to_dict())
    return report


def _folds(data: Features, split: str, seeds: Sequence[int], split_seed: int | None) -> list[tuple[int, Fold]]:
    """Return pairs of seed and fold, for all folds of each seed."""
    split_seeds = seeds if split_seed is None else [split_seed]
    made = {s: make_folds(split, **data.columns, seed=s) for s in split_seeds}  # once: many folds take seconds
    return [(s, fold) for s in seeds for fold in made[s if split_seed is None else split_seed]]


def _heads(trainer: Trainer, folds: Sequence[tuple[int, Fold]], *, final: bool) -> list[Job]:
    """Return the heads to train, each with its existing state, and remove unfinished files of killed calls."""
    folders = [trainer.out / run_folder_name(fold.name, s) for s, fold in folds] if len(folds) > 1 else [trainer.out]
    refuse_other_runs(trainer.out, folders)
    for folder in {trainer.out, *folders}:
        refuse_others(folder / ANSWERS, "--out", "clip_id", "answers of `train-head`")
    if len(folders) > 1:
        refuse_others(trainer.out / TOGETHER, "--out", "clip_id", "answers of `train-head`")
        refuse_others(trainer.out / SUMMARY, "--out", '"runs"', "a summary of `train-head`")
    for folder in {trainer.out, *folders}:
        remove_unfinished(folder)
    heads = [Job(fold, s, folder, final) for (s, fold), folder in zip(folds, folders, strict=True)]
    heads = [_looked_up(job, trainer.describe(job), overwrite=trainer.overwrite) for job in heads]
    for job in heads:
        make_folder(job.folder)  # only if none was refused; a folder without a run marks the call as unfinished
    return heads


def _looked_up(job: Job, described: dict[str, Any], *, overwrite: bool) -> Job:
    """Return the job with its folder's state (:func:`fitrec_cache.runs.run.check_out`) and any existing result."""
    state = check_out(job.folder, described, overwrite=overwrite)
    try:
        there = read_result(job.folder) if state in ("tested", "whole") else None
    except StoreCorrupt:
        state, there = "damaged", None
    if state == "damaged":  # if it had a final head, that is trained again too
        had = bool(read_run_json(job.folder / "run.json").get("final"))
        return replace(job, state=state, final=job.final or had)
    return replace(job, state=state, there=there)


def _settle(
    usual: Recipe, wanted: Recipe, given: dict[str, Any], variant: str, attention: str | None, device: torch.device
) -> tuple[Recipe, list[str]]:
    """Return the recipe with the given settings, except those that have no effect here, and notes on these."""
    idle = wanted.idle(variant, attention)
    chosen = usual.change(**{name: value for name, value in given.items() if name not in idle})
    chosen = with_precision(chosen, device, variant)
    if chosen.precision != given.get("precision", "auto") == "bf16":
        idle["precision"] = f"for variant {variant} on {device}"
    changed = {name for name, value in given.items() if value != getattr(usual, name)}
    return chosen, [f"{name} changes nothing {idle[name]}: left out" for name in given if name in idle.keys() & changed]


def _how_to_look(
    seed: int,
    *,
    cache: Path | None,
    split: str,
    groups: Sequence[str | None],
    classes: str | None,
    backbone: Sequence[str],
    preset: str | None,
    split_seed: int | None,
) -> str | None:
    """Return a command that shows near-duplicates between the sides of a seed's split; None without a cache."""
    if cache is None:
        return None
    one = backbone if len(backbone) == 1 else None  # otherwise audit takes the most complete features
    source = options(cache=cache, backbone=one, preset=preset)
    if None in groups:
        proposal = command("audit", *source, manifest="groups.csv")
        return f"`{proposal}` proposes groups that keep near-duplicates on one side"
    rule, number = None if split == "auto" else split, seed if split_seed is None else split_seed
    shown = command("audit", *source, split=rule, classes=classes, seed=number or None, out="audit")
    return f"`{shown}` shows which clips look alike"
