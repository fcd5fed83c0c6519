from __future__ import annotations

import collections
from typing import get_type_hints

import numpy as np
import pytest

from fitrec_cache import cli
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.dataset.folds import folds_of_clips, make_folds
from fitrec_cache.dataset.rules import _RULES, check_rule, units_of_run
from fitrec_cache.dataset.splits import check_seeds
from fitrec_cache.dataset.units import units_of
from fitrec_cache.errors import UsageError
from fitrec_cache.video.spans import Span

NAMES = [f"{label}/{i}.mp4" for label in "AB" for i in range(6)]


def clips(groups=None, extra=None, n=12):
    return {
        "clip_ids": NAMES[:n],
        "labels": [name[0] for name in NAMES[:n]],
        "groups": groups or [None] * n,
        "extra": extra or [{}] * n,
        "seed": 0,
    }


@pytest.mark.parametrize("with_val", [False, True])
def test_the_manifest_decides_who_tests(with_val):
    column = ["test" if n[2] == "5" else "val" if with_val and n[2] == "4" else "train" for n in NAMES]
    extra = [{"split": s} for s in column]
    (fold,) = make_folds("manifest", **clips(extra=extra))
    split = fold.split
    assert (fold.name, split.rule) == ("", "manifest")
    assert [NAMES[i] for i in split.test] == ["A/5.mp4", "B/5.mp4"]
    assert not set(split.train) & (set(split.val) | set(split.test))
    if with_val:
        assert [NAMES[i] for i in split.val] == ["A/4.mp4", "B/4.mp4"]
        (together,) = make_folds("manifest", **clips(extra=extra, groups=[n[0] for n in NAMES]))
        assert together.split.sharing == 2
    for bad in ([{}] * 12, [{"split": "tset"}] * 12, [{"split": "test"}] * 12):
        with pytest.raises(UsageError, match="column split"):
            make_folds("manifest", **clips(extra=bad))


def test_clips_without_a_side_and_classes_without_training_are_told():
    names = [f"{label}/{i}.mp4" for label in "ABCD" for i in range(6)]
    sides = {"0": "", "1": "val"}
    column = [{"B": "test", "D": ""}.get(n[0], sides.get(n[2], "train")) for n in names]
    given = {"clip_ids": names, "labels": [n[0] for n in names], "groups": [None] * 24, "seed": 0}
    (fold,) = make_folds("manifest", **given, extra=[{"split": s} for s in column])
    assert "left out: 8 of 24 clips are on no side" in fold.split.notes
    assert fold.split.untrained == ("B",)
    assert "1 class is on no side and not learned: D" in fold.split.notes
    labels, numbers = fold.split.classes(given["labels"])
    assert labels == ["A", "B", "C"]
    assert numbers.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [-1] * 6


@pytest.mark.parametrize(
    ("side", "notes", "untrained"),
    [
        ("train", ("class C has one clip: it stays in training",), ()),
        ("val", ("1 class has no test clip: C",), ("C",)),
        ("test", (), ("C",)),
    ],
)
def test_of_a_class_of_one_clip_it_is_told_where_that_is(side, notes, untrained):
    sides = ["train", "train", "train", "val", "test", "test"]
    names = [*NAMES, "C/0.mp4"]
    given = {"clip_ids": names, "labels": [n[0] for n in names], "groups": [None] * 13, "seed": 0}
    (fold,) = make_folds("manifest", **given, extra=[{"split": s} for s in [*sides, *sides, side]])
    assert (fold.split.notes, fold.split.untrained) == (notes, untrained)


@pytest.mark.parametrize("val", ["val", "train"])
def test_a_split_that_trains_on_one_class_is_refused(val):
    column = ["test" if n[0] == "B" else val if n[2] == "1" else "train" for n in NAMES]
    with pytest.raises(UsageError, match=r"split 'manifest' trains on one class, A: expected at least two"):
        make_folds("manifest", **clips(extra=[{"split": s} for s in column]))


def test_the_split_of_a_manifest_takes_no_column():
    """Someone who knows leave-one:COLUMN may try it."""
    for check in (check_rule, lambda rule: make_folds(rule, **clips(extra=[{"split": "train"}] * len(NAMES)))):
        with pytest.raises(UsageError, match=r"unknown split 'manifest:room'"):
            check("manifest:room")
    check_rule("manifest")


def test_every_rule_is_named_where_users_look():
    """Messages list the table of rules; these texts do not."""
    for text in (get_type_hints(cli.train_head, include_extras=True)["split"].__metadata__[0].help, make_folds.__doc__):
        assert [name for name in _RULES if name.rstrip("123") not in text] == []


def test_every_fold_must_train_two_classes():
    room = ["y" if n[0] == "B" else "x" if n[2] < "3" else "z" for n in NAMES]  # without y, only A is left
    with pytest.raises(UsageError, match=r"split 'leave-one:room' trains on one class, A: expected at least two"):
        make_folds("leave-one:room", **clips(extra=[{"room": r} for r in room]))


@pytest.mark.parametrize("known", [False, True])
def test_k_folds_test_every_clip_once_and_keep_groups_together(known):
    rng = np.random.default_rng(0)
    labels = [str(k) for k in rng.integers(0, 3, 90)]
    groups = [f"{label}g{i % 6}" if known else None for i, label in enumerate(labels)]
    names = [f"{i}.mp4" for i in rng.permutation(90)]
    folds = make_folds("kfold:5", clip_ids=names, labels=labels, groups=groups, extra=[{}] * 90, seed=1)
    assert [f.name for f in folds] == ["01", "02", "03", "04", "05"]
    tested = collections.Counter(int(i) for f in folds for i in f.split.test)
    assert tested == dict.fromkeys(range(90), 1)
    for fold in folds:
        sides = [set(side.tolist()) for side in (fold.split.train, fold.split.val, fold.split.test)]
        assert sum(map(len, sides)) == 90
        assert len(set.union(*sides)) == 90
        assert fold.split.rule == "kfold:5"
        if known:
            of = [{groups[i] for i in side} for side in sides]
            assert not of[0] & of[2]
            assert not of[0] & of[1]
            assert not of[1] & of[2]
        else:
            share = collections.Counter(labels[i] for i in sides[2])
            assert all(abs(share[k] - labels.count(k) / 5) <= 1 for k in "012")
    turned = np.arange(90)[::-1]
    again = make_folds(
        "kfold:5",
        clip_ids=[names[i] for i in turned],
        labels=[labels[i] for i in turned],
        groups=[groups[i] for i in turned],
        extra=[{}] * 90,
        seed=1,
    )
    assert [{names[turned[i]] for i in f.split.test} for f in again] == [
        {names[i] for i in f.split.test} for f in folds
    ]


def test_there_may_be_as_many_folds_as_groups():
    groups = [f"g{int(n[2]) // 2}" for n in NAMES]  # three, each of two clips of either class
    folds = make_folds("kfold:3", **clips(groups=groups))
    tested = [{groups[i] for i in f.split.test} for f in folds]
    assert sorted(map(sorted, tested)) == [["g0"], ["g1"], ["g2"]]


def test_a_class_of_fewer_clips_than_folds_is_spread():
    folds = make_folds("kfold:3", **clips(n=8))  # six of A, two of B
    assert sorted(int(i) for f in folds for i in f.split.test) == list(range(8))


def test_leave_one_tests_each_value_of_a_column_once():
    room = ["x/1" if n[2] in "01" else "y" if n[2] in "23" else "z" for n in NAMES]
    folds = make_folds("leave-one:room", **clips(extra=[{"room": r} for r in room]))
    assert [f.name for f in folds] == ["01-x/1", "02-y", "03-z"]
    assert [sorted(NAMES[i][2] for i in f.split.test) for f in folds] == [list("0011"), list("2233"), list("4455")]
    of_somebody = make_folds("folds:room", **clips(extra=[{"room": r} for r in room]))
    assert [f.split.test.tolist() for f in of_somebody] == [f.split.test.tolist() for f in folds]
    assert {f.split.rule for f in of_somebody} == {"folds:room"}
    with pytest.raises(UsageError, match="split 'folds:x': no clip has that column"):
        make_folds("folds:x", **clips())
    by_group = make_folds("leave-one:group", **clips(groups=room))
    assert [f.split.test.tolist() for f in by_group] == [f.split.test.tolist() for f in folds]


def test_names_of_more_than_99_folds_are_in_their_order():
    names = [f"{label}/{i}.mp4" for i in range(101) for label in "AB"]
    given = {"clip_ids": names, "labels": [n[0] for n in names], "groups": [n[2:] for n in names], "seed": 0}
    folds = [f.name for f in make_folds("leave-one:group", **given, extra=[{}] * len(names))]
    assert folds == sorted(folds)
    assert (folds[0], folds[-1]) == ("001-0.mp4", "101-99.mp4")


def test_clips_belong_to_their_group_and_to_their_fold_where_a_column_is_left_out():
    names, groups = ["a", "b", "c", "d"], ["g", None, "g", None]

    def of(rule, fold):
        return units_of_run({"split": {"rule": rule, "test": names, "test_groups": groups}, "fold": fold})

    by_group = units_of(names, groups)
    assert by_group[0] == by_group[2]
    assert len(set(by_group)) == 3
    assert of("kfold:2", "01") == of("folds:room", "01-x") == of("of another program", "x") == by_group
    assert of("leave-one:room", "") == by_group  # all folds together
    assert len(set(of("leave-one:room", "01-x"))) == 1
    assert len(set(units_of(["g", "x"], [None, "g"]))) == 2  # a clip named as a group is not of it


def test_errors_and_notes_name_the_rule_that_was_given():
    names = [f"{label}{k}.mp4" for label in "AB" for k in range(2)]
    few = {"clip_ids": names, "labels": [n[0] for n in names], "groups": [None] * 4, "extra": [{}] * 4, "seed": 0}
    with pytest.raises(UsageError, match=r"^split 'kfold:2' leaves no clips to val on"):
        make_folds("kfold:2", **few)
    sides = ["train" if int(n[2]) < 4 else "test" if n[2] == "4" else "" for n in NAMES]
    (fold,) = make_folds("manifest", **clips(extra=[{"split": side} for side in sides]))
    assert fold.split.rule == "manifest"
    assert "left out: 2 of 12 clips are on no side" in fold.split.notes
    with pytest.raises(UsageError, match=r"'leave-one:group': no clip's group is known; extract from a manifest with"):
        make_folds("leave-one:group", **clips(extra=[{}] * 12))


def test_one_clip_without_a_group_leaves_the_other_groups_together():
    rng = np.random.default_rng(0)
    names = [f"{i:02d}.mp4" for i in range(60)]
    groups = [f"g{i // 4}" if i else None for i in range(60)]
    labels = [str(k) for k in rng.integers(0, 3, 60)]
    for fold in make_folds("kfold:3", clip_ids=names, labels=labels, groups=groups, extra=[{}] * 60, seed=0):
        sides = [{groups[i] for i in side} - {None} for side in (fold.split.train, fold.split.val, fold.split.test)]
        assert not sides[0] & sides[1]
        assert not (sides[0] | sides[1]) & sides[2]


def test_any_seed_is_taken_and_gives_its_own_folds():
    assert len(make_folds("kfold:2", **clips() | {"seed": 2**63 - 1})) == 2
    tested = [make_folds("kfold:2", **clips() | {"seed": 2**32 + s})[0].split.test.tolist() for s in range(5)]
    assert len({tuple(each) for each in tested}) > 1


def test_the_seed_chooses_the_validation_clips_of_folds():
    room = {"extra": [{"room": "x" if n[2] in "01" else "y"} for n in NAMES]}
    first = [make_folds("leave-one:room", **clips(**room) | {"seed": seed})[0].split for seed in range(5)]
    assert len({tuple(split.test.tolist()) for split in first}) == 1
    assert len({tuple(split.val.tolist()) for split in first}) > 1


def test_wrong_rules_are_refused():
    for rule, reason in (
        ("kfold:1", "at least 2"),
        ("kfold:x", "at least 2"),
        ("kfold:²", "at least 2"),
        ("kfold:13", "of 12 clips"),
        ("kfold:7", "the largest class has 6 clips"),
        ("leave-one:room", "no clip has that column"),
        ("leave-one:", "no clip has that column"),
        ("kfolds:3", "unknown split"),
    ):
        with pytest.raises(UsageError, match=reason):
            make_folds(rule, **clips())
    with pytest.raises(UsageError, match="of 2 groups"):
        make_folds("kfold:3", **clips(groups=[n[0] for n in NAMES]))
    with pytest.raises(UsageError, match="of 3 groups: expected no more folds than groups"):  # one clip is by itself
        make_folds("kfold:4", **clips(groups=[None, *(n[0] for n in NAMES[1:])]))
    with pytest.raises(UsageError, match="1 clip has no value"):
        make_folds("leave-one:room", **clips(extra=[{}] + [{"room": str(i)} for i in range(11)]))
    with pytest.raises(UsageError, match="expected at least two"):
        make_folds("leave-one:room", **clips(extra=[{"room": "x"}] * 12))


def test_any_clip_id_can_be_folded():
    names = [f"{label}\\{i}.mp4" for label in "AB" for i in range(6)]
    folds = make_folds("kfold:3", **clips() | {"clip_ids": names})
    assert sorted(int(i) for f in folds for i in f.split.test) == list(range(12))
    with pytest.raises(UsageError, match="seed -1"):
        make_folds("kfold:3", **clips() | {"seed": -1})


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_no_generator_takes_are_refused(seed):
    with pytest.raises(UsageError, match=rf"seed {seed}: expected 0 to 2\^63 - 1"):
        check_seeds([0, seed])


def part(file, number, group=None):
    span = Span(float(number), number + 1.0)
    return Clip(clip_id=f"{file}{span}", file=file, label=file[0], group=group, span=span)


def test_parts_of_a_recording_stay_together_before_anything_is_decoded():
    files = [f"{label}{n}.mp4" for label in "AB" for n in range(3)]
    folds = folds_of_clips("leave-one:group", [part(file, k) for file in files for k in range(2)], seed=0)
    assert [fold.split.test.tolist() for fold in folds] == [[2 * k, 2 * k + 1] for k in range(6)]


def test_parts_keep_groups_of_their_own():
    """As of several people in one video: what a manifest says counts, and names the part that it says nothing of."""
    parts = [part(f"{label}.mp4", k, group) for label in "AB" for k, group in enumerate(["ann", "bo", "cy", None])]
    folds = folds_of_clips("leave-one:group", parts, seed=0)
    found = {fold.name: fold.split.test.tolist() for fold in folds}
    assert found == {"01-ann": [0, 3, 4, 7], "02-bo": [1, 5], "03-cy": [2, 6]}
