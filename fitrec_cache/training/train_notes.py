"""The notes of a training: about its splits, before it begins, and about the answers of its heads, at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fitrec_cache.auditing.leaks import UNLOOKED, UNLOOKED_IN_POSES, Verdict, verdict
from fitrec_cache.auditing.near_duplicates import NearDuplicates
from fitrec_cache.dataset.rules import rule_of, values_of
from fitrec_cache.dataset.splits import Split, say_untrained
from fitrec_cache.evaluation.calibration import Calibration, remarks
from fitrec_cache.features import Features
from fitrec_cache.runs.scored import ScoredRun
from fitrec_cache.training.trainer import Job


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The findings about the splits of one call.

    Attributes:
        leaks: Whether any split leaks.
        wrong: The notes that cast doubt on the results.
        notes: All notes, in order.
    """

    leaks: bool
    wrong: tuple[str, ...]
    notes: tuple[str, ...]


def judge_splits(
    jobs: Sequence[Job], data: Features, near: NearDuplicates | None, *, look: Callable[[int], str | None]
) -> Judged:
    """Return what is wrong with the splits of one call.

    Args:
        jobs: The heads of the call.
        data: The clips that were split.
        near: Near-duplicates among them; None if they were not looked for.
        look: Returns, for a seed, how to view the near-duplicates of its split; None if it cannot say.
    """
    unlooked = UNLOOKED_IN_POSES if data.only_poses else UNLOOKED
    judged = [(job, verdict(job.fold.split, data.groups, near, unlooked)) for job in jobs]
    leaks, verdicts = any(said.leaks for _, said in judged), _verdicts(judged, data.groups, near, unlooked)
    told, untrained = _fold_notes(jobs)
    notes = [*told, *untrained, *verdicts]
    alike = [job.seed for job, said in judged if said.near_duplicate]
    notes += filter(None, map(look, alike[:1]))
    notes += _shared_values([job.fold.split for job in jobs], data)
    return Judged(leaks=leaks, wrong=(*untrained, *(verdicts if leaks else ())), notes=tuple(notes))


def _verdicts(
    judged: Sequence[tuple[Job, Verdict]], groups: Sequence[str | None], near: NearDuplicates | None, unlooked: str
) -> list[str]:
    """Return one line on whether each split leaks; for folds, one per leaking fold and a summary of the others.

    Seeds are named only if they test different clips in a fold, or something else is said of it.
    """
    if not judged[0][0].fold.name:
        texts = [said.text for _, said in judged]
        if len(set(texts)) == 1:  # as with lists, whose sides do not depend on the seed
            return texts[:1]
        return [f"seed {job.seed}: {said.text}" for job, said in judged]
    distinct = {(job.fold.name, job.fold.split.test.tobytes(), said.text) for job, said in judged}
    alike = len(distinct) == len({job.fold.name for job, _ in judged})
    folds = {f"fold {job.fold.name}" + (f", seed {job.seed}" if not alike else ""): said for job, said in judged}
    lines = [f"{name}: {said.text}" for name, said in folds.items() if said.leaks]
    sound = len(folds) - len(lines)
    missing = sum(group is None for group in groups)
    if near is None and missing == len(groups):
        return [f"not known whether the {len(folds)} folds leak: groups are unknown, {unlooked}"]
    unknown = f"; the group of {missing} of {len(groups)} clips is unknown" if missing else ""
    unknown = "; groups are unknown" if missing == len(groups) else unknown
    not_looked = f"; {unlooked}" if near is None else ""
    nothing = "near-duplicate" if missing == len(groups) else "leak"
    summary = f"no {nothing} found in {sound} of {len(folds)} folds" if sound else f"all {len(folds)} folds (may) leak"
    return [*lines, f"{summary}{unknown}{not_looked}"]


def _fold_notes(jobs: Sequence[Job]) -> tuple[list[str], list[str]]:
    """Return the notes of all splits, and notes on classes that cannot be learned, each note once.

    For folds only the latter, because a fold usually lacks some classes in testing. Seeds are named only if their notes
    differ.
    """
    notes, untrained = [], []
    shared = len({(job.fold.split.notes, job.fold.split.untrained) for job in jobs}) == 1
    for job in jobs:
        name, split = job.fold.name, job.fold.split
        prefix = f"fold {name}: " if name else "" if shared else f"seed {job.seed}: "
        notes += [prefix + note for note in split.notes if not name]
        untrained += [prefix + note for note in say_untrained(split.untrained)]
    return list(dict.fromkeys(notes)), list(dict.fromkeys(untrained))


def _shared_values(splits: Sequence[Split], data: Features) -> list[str]:
    """Return a note if validation shares values with training in a column whose values are left out in turn (rooms)."""
    rule = splits[0].rule
    if not rule_of(rule).by_fold:
        return []
    column = rule.partition(":")[2]
    values = values_of(rule, data.groups, data.extra)
    sides = [({values[i] for i in split.val.tolist()}, {values[i] for i in split.train.tolist()}) for split in splits]
    if not any(val & train for val, train in sides):
        return []
    return [
        f"validation clips are of a {column} that training has too: probabilities and the threshold for 'unknown' are "
        f"fitted to what is known, so answers for another {column} are overconfident"
    ]


def there_notes(jobs: Sequence[Job]) -> list[str]:
    """Return notes on runs that existed already."""
    notes = []
    if kept := sum(job.there is not None for job in jobs):
        notes.append(f"{kept} of {len(jobs)} runs were there already, made by the same settings: kept")
    if damaged := [job.folder for job in jobs if job.state == "damaged"]:
        notes.append(
            f"{len(damaged)} of {len(jobs)} runs had missing or damaged files, such as {damaged[0]}: trained again"
        )
    return notes


def device_notes(device: torch.device) -> list[str]:
    """Return a note if the same seed may not give the same bits on this device."""
    if device.type == "cpu":
        return []
    return [f"trained on {device}: there the same seed may give other last bits; on the CPU it gives the same"]


def final_note(clips: int) -> str:
    """Return the note that new videos are answered by heads trained on all clips."""
    return (
        f"predict and watch use heads trained on all {clips} clips; the figures are of heads trained without "
        "the test clips"
    )


def answer_notes(scored: Sequence[ScoredRun], pooled: Sequence[dict[str, Any]], ensemble: dict[str, Any]) -> list[str]:
    """Return notes on how good "unknown" and the probabilities are, and on what is unknown about the joint answer."""
    notes = list(remarks([(Calibration.of(one.run_json), one.val_units) for one in scored]))
    if len(scored) > 1 and not pooled and not ensemble:
        notes.append(
            "the seeds test different clips, so what they answer together, as predict does, is not tested: another "
            "--out with --split-seed 0 gives them the same"
        )
    if ensemble and ensemble["temperature"] is None:
        notes.append(
            "the seeds were validated on different clips, so what they answer together has no temperature of its own "
            "and is rather underconfident: another --out with --split-seed 0 gives them the same"
        )
    return notes
