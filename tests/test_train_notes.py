"""Splits of five clips and answers of no head: what is told of them, word by word."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fitrec_cache.auditing.near_duplicates import NearDuplicates
from fitrec_cache.dataset.folds import Fold
from fitrec_cache.dataset.splits import Split
from fitrec_cache.training.train_notes import answer_notes, judge_splits, there_notes
from fitrec_cache.training.trainer import Job

SOUND = {"train": [0, 1], "val": [2], "test": [3]}
LEAKS = {"train": [0, 1], "val": [2], "test": [4]}  # where 1 and 4 are alike
ALIKE = NearDuplicates(
    threshold=0.9, pairs=np.array([[1, 4]]), similarity=np.ones(1, np.float32), halves_found=None, strangers_found=None
)
NONE_KNOWN, ONE_OF = [None] * 5, "; the group of 1 of"
LEAKING = "split leaks (accuracy probably too high)"
NOT_LOOKED = "near-duplicates not looked for: run audit"


def judged(splits, *, groups=tuple("abcde"), near=ALIKE, folds=0, rule="r", rooms="vwxyz", look=lambda _: None):
    jobs = []
    for seed, split in enumerate(splits):
        sides = {name: np.array(clips) if name in SOUND else clips for name, clips in split.items()}
        fold = Fold(name=f"0{seed % folds + 1}" if folds else "", split=Split(rule=rule, **{"notes": ()} | sides))
        jobs.append(Job(fold, 7 + seed // folds if folds else seed, Path(f"{seed}"), False))
    data = SimpleNamespace(groups=groups, only_poses=False, extra=[{"room": room} for room in rooms])
    return judge_splits(jobs, data, near, look=look)


def verdict(near, *, leaks="split may leak (accuracy may be too high)"):
    told = f"0 of 1 test clips share a group with training, {near} have a near-duplicate there"
    return f"{leaks if near else 'no leak found'}: {told} (similarity 0.900 or more)"


def test_the_first_seed_whose_clips_look_alike_is_to_be_looked_at():
    found = judged([SOUND, LEAKS, LEAKS], look="look at {}".format)
    said = (f"seed 0: {verdict(0)}", f"seed 1: {verdict(1)}", f"seed 2: {verdict(1)}")
    assert (found.leaks, found.wrong, found.notes) == (True, said, (*said, "look at 1"))
    assert judged([SOUND, LEAKS, LEAKS]).notes == said


def test_what_is_said_of_all_seeds_names_none():
    found = judged([LEAKS, LEAKS])
    assert (found.leaks, found.wrong, found.notes) == (True, (verdict(1),), (verdict(1),))


def test_a_class_that_cannot_be_learned_is_wrong_and_a_sound_verdict_is_not():
    found = judged([SOUND | {"untrained": ("C",), "notes": ("usual",)}])
    assert (found.leaks, found.wrong) == (False, ("1 class has no training clip: C",))
    assert found.notes == ("usual", "1 class has no training clip: C", verdict(0))


@pytest.mark.parametrize(
    ("groups", "near", "fold", "rest"),
    [
        (list("abcde"), ALIKE, verdict(1), ""),
        (
            [None, *"bcde"],
            ALIKE,
            f"{verdict(1, leaks=LEAKING)}{ONE_OF} 4 clips is unknown",
            f"{ONE_OF} 5 clips is unknown",
        ),
        (
            NONE_KNOWN,
            ALIKE,
            f"{LEAKING}: 1 of 1 test clips have a near-duplicate in training "
            "(similarity 0.900 or more); groups are unknown",
            "; groups are unknown",
        ),
        (
            list("abcdb"),
            None,
            f"{LEAKING}: 1 of 1 test clips share a group with training; {NOT_LOOKED}",
            f"; {NOT_LOOKED}",
        ),
    ],
)
def test_of_folds_those_that_leak_are_named_and_the_others_counted(groups, near, fold, rest):
    found = judged([SOUND, LEAKS], groups=groups, near=near, folds=2)
    what = "near-duplicate" if groups == NONE_KNOWN else "leak"
    said = (f"fold 02: {fold}", f"no {what} found in 1 of 2 folds{rest}")
    assert (found.leaks, found.wrong, found.notes) == (True, said, said)
    assert judged([LEAKS, LEAKS], groups=groups, near=near, folds=2).notes[2:] == (f"all 2 folds (may) leak{rest}",)


def test_of_folds_seeds_are_named_only_where_it_differs_what_is_said():
    assert judged([SOUND, LEAKS, SOUND, LEAKS], folds=2).notes == judged([SOUND, LEAKS], folds=2).notes
    differing = judged([SOUND, LEAKS, LEAKS, LEAKS], folds=2).notes
    named = [f"fold {name}: {verdict(1)}" for name in ("02, seed 7", "01, seed 8", "02, seed 8")]
    assert list(differing) == [*named, "no leak found in 1 of 4 folds"]
    nothing = judged([SOUND, LEAKS] * 3, groups=NONE_KNOWN, near=None, folds=2).notes
    assert nothing == (f"not known whether the 2 folds leak: groups are unknown, {NOT_LOOKED}",)


def test_of_folds_of_which_nothing_is_known_nothing_is_said_to_be_sound():
    found = judged([SOUND, LEAKS], groups=NONE_KNOWN, near=None, folds=2)
    assert found.notes == (f"not known whether the 2 folds leak: groups are unknown, {NOT_LOOKED}",)
    assert (found.leaks, found.wrong) == (False, ())


@pytest.mark.parametrize(
    ("rule", "rooms", "told"),
    [
        ("leave-one:room", "xyxzw", True),  # clip 2 validates in the first fold, and 0 learns
        ("leave-one:room", "xyzxx", False),  # tested clips are of one, too, but that is no matter of validation
        ("kfold:2", "xyxzw", False),
    ],
)
def test_rooms_that_one_fold_has_in_training_and_validation_are_told(rule, rooms, told):
    splits = [SOUND, {"train": [0, 3], "val": [1], "test": [2]}]
    notes = judged(splits, near=None, folds=2, rule=rule, rooms=rooms).notes
    assert any(note.startswith("validation clips are of a room that training has too: ") for note in notes) is told


def answered(**calibration):
    fitted = {"temperature": 1.3, "threshold": 0.2, "false_alarm_rate": 0.05} | calibration
    return SimpleNamespace(run_json={"calibration": fitted}, val_units=[f"clip {i}" for i in range(14)])


def test_what_the_answers_of_any_seed_are_worth_is_told():
    (note,) = answer_notes([answered(), answered(threshold=0.0)], (), {"temperature": 1.0})
    assert note.startswith('no video will be answered "unknown", whatever it shows: ')
    assert note.endswith(" (1 of 2 runs)")


@pytest.mark.parametrize(
    ("seeds", "pooled", "ensemble", "told"),
    [
        (2, (), {}, "the seeds test different clips, so what they answer together, as predict does, is not tested: "),
        (2, (), {"temperature": None}, "the seeds were validated on different clips, so what they answer together has"),
        (2, (), {"temperature": 1.2}, ""),
        (2, ({"seed": 0},), {}, ""),  # folds do not answer together
        (1, (), {}, ""),
    ],
)
def test_what_is_not_known_of_seeds_together_is_told(seeds, pooled, ensemble, told):
    notes = answer_notes([answered()] * seeds, pooled, ensemble)
    assert len(notes) == bool(told)
    assert all(note.startswith(told) for note in notes)


def test_what_was_there_is_counted_with_or_without_a_final_head():
    fold, there = Fold(name="", split=Split(rule="r", notes=(), **SOUND)), object()
    states = [("whole", there), ("tested", there), ("damaged", None), ("missing", None)]
    jobs = [Job(fold, seed, Path(f"{seed}"), True, *state) for seed, state in enumerate(states)]
    assert there_notes(jobs) == [
        "2 of 4 runs were there already, made by the same settings: kept",
        "1 of 4 runs had missing or damaged files, such as 2: trained again",
    ]
    assert there_notes(jobs[3:]) == []
