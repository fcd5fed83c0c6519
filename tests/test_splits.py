from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitrec_cache.auditing.leaks import verdict
from fitrec_cache.dataset import clips, find_clips, manifests
from fitrec_cache.dataset.folds import make_folds
from fitrec_cache.dataset.rules import short_rule, sides_digest
from fitrec_cache.errors import UsageError

UCF = Path(__file__).parents[2] / "shared/data/ucfTrainTestlist"


def data_set(sizes):
    """Clips of a {(class, group): number of clips} in UCF101's names."""
    rows = [
        (f"{k}/v_{k}_g{g:02}_c{c:02}.avi", k, f"{k}_g{g:02}") for (k, g), n in sizes.items() for c in range(1, n + 1)
    ]
    ids, labels, groups = zip(*rows, strict=True)
    return {"clip_ids": list(ids), "labels": list(labels), "groups": list(groups)}


def make_split(rule, **given):
    """The one split that a rule makes of clips without further columns."""
    (fold,) = make_folds(rule, extra=[{}] * len(given["clip_ids"]), **given)
    return fold.split


def even(classes, groups, clips_each):
    return data_set({(f"K{k}", g): clips_each for k in range(classes) for g in range(1, groups + 1)})


def without_groups(data):
    return {**data, "groups": [None] * len(data["groups"])}


def sides(split):
    return {"train": split.train, "val": split.val, "test": split.test}


def class_counts(split, data):
    return {name: Counter(data["labels"][i] for i in part) for name, part in sides(split).items()}


def by_lists(folder, train, test):
    """The rule of two files that name these clips."""
    for name, names in (("train.txt", train), ("test.txt", test)):
        (folder / name).write_text("".join(f"{each}\n" for each in names))
    return f"list:{folder}/train.txt,{folder}/test.txt"


def named(split, data):
    return {name: {data["clip_ids"][i] for i in part} for name, part in sides(split).items()}


@st.composite
def any_data(draw):
    """Two to five classes, each clip in one of up to twelve groups, groups may span classes or be unknown."""
    n_classes = draw(st.integers(2, 5))
    span = draw(st.booleans())
    rows = draw(st.lists(st.tuples(st.integers(0, n_classes - 1), st.integers(0, 11)), min_size=3, max_size=60))
    return {
        "clip_ids": [f"K{k}/{i}.avi" for i, (k, _) in enumerate(rows)],
        "labels": [f"K{k}" for k, _ in rows],
        "groups": [f"g{g}" if span else f"K{k}_g{g}" for k, g in rows],
    }


def splittable(data, rule):
    """Two classes, one of them with three units, and no unit shared by classes: nothing may stand in the way."""
    units = data["groups"] if rule == "group" else data["clip_ids"]
    pairs = set(zip(data["labels"], units, strict=True))
    shared = len(pairs) > len(set(units))
    return len(set(data["labels"])) > 1 and not shared and max(Counter(k for k, _ in pairs).values()) > 2


@given(any_data(), st.integers(0, 99), st.sampled_from(["group", "random"]))
@settings(max_examples=150)
def test_sides_are_disjoint_exhaustive_and_never_empty(data, seed, rule):
    try:
        split = make_split(rule, **data, seed=seed)
    except UsageError:
        assert not splittable(data, rule)
        return
    everything = np.concatenate([split.train, split.val, split.test])
    assert sorted(everything.tolist()) == list(range(len(data["clip_ids"])))
    for part in sides(split).values():
        assert part.dtype == np.int64
        assert len(part)
        assert (np.diff(part) > 0).all()
    assert set(class_counts(split, data)["train"]) == set(data["labels"])


@given(any_data(), st.integers(0, 99))
@settings(max_examples=150)
def test_no_group_is_on_two_sides(data, seed):
    try:
        split = make_split("group", **data, seed=seed)
    except UsageError:
        return
    groups = [{data["groups"][i] for i in part} for part in sides(split).values()]
    assert sum(len(each) for each in groups) == len(set().union(*groups))
    assert verdict(split, data["groups"], None).share_group == 0


@given(st.dictionaries(st.tuples(st.sampled_from("ABC"), st.integers(1, 9)), st.integers(1, 5)), st.integers(0, 9))
@settings(max_examples=100)
def test_classes_with_three_groups_are_on_every_side(sizes, seed):
    n_groups = Counter(k for k, _ in sizes)
    if len(n_groups) < 2 or min(n_groups.values()) < 3:
        return
    data = data_set(sizes)
    counts = class_counts(make_split("group", **data, seed=seed), data)
    assert all(set(counts[name]) == set(n_groups) for name in counts)


@given(any_data(), st.integers(0, 99), st.randoms(), st.sampled_from(["group", "random"]))
@settings(max_examples=60)
def test_order_of_the_clips_does_not_matter(data, seed, random, rule):
    shuffled = list(range(len(data["clip_ids"])))
    random.shuffle(shuffled)
    other = {name: [column[i] for i in shuffled] for name, column in data.items()}
    try:
        split = make_split(rule, **data, seed=seed)
    except UsageError:
        return
    assert named(make_split(rule, **other, seed=seed), other) == named(split, data)


def test_seeds_differ_and_repeat():
    data = even(4, 10, 3)
    found = [make_split("group", **data, seed=seed).test.tolist() for seed in (0, 1, 0)]
    assert found[0] == found[2] != found[1]


def test_no_group_that_is_left_out_would_bring_the_test_side_closer():
    """Closeness as the module defines it, in exact arithmetic: sum over classes of (clips - 20 %)^2 / 20 %."""
    rng = np.random.default_rng(1)
    data = data_set({(k, g): int(rng.integers(*n)) for g in range(16) for k, n in (("A", (1, 12)), ("B", (0, 4)))})
    data["groups"] = [group[2:] for group in data["groups"]]  # each spans both classes
    held = {g: Counter() for g in data["groups"]}
    for g, k in zip(data["groups"], data["labels"], strict=True):
        held[g][k] += 1
    target = {k: Fraction(n, 5) for k, n in Counter(data["labels"]).items()}

    def away(groups):
        return sum((sum(held[g][k] for g in groups) - target[k]) ** 2 / target[k] for k in "AB")

    for seed in range(20):
        test = {data["groups"][i] for i in make_split("group", **data, seed=seed).test}
        assert all(away(test | {g}) >= away(test) for g in held.keys() - test)


def test_a_group_that_brings_the_side_no_closer_stays():
    """Of 15 clips 3 are wanted: a pair and the single one; a second pair is as far from it as the first alone."""
    data = data_set({(k, g): 2 if g < 8 else 1 for k in "AB" for g in range(1, 9)})
    for seed in range(20):
        assert class_counts(make_split("group", **data, seed=seed), data)["test"] == {"A": 3, "B": 3}


def test_validation_takes_all_but_one_group_where_that_is_closest(tmp_path):
    """Of 10 clips 2 are wanted, which are two groups; the third, of 8, trains."""
    data = data_set({(k, g): n for k in "AB" for g, n in ((1, 1), (2, 1), (3, 8), (4, 1))})
    test = [name for name in data["clip_ids"] if "_g04_" in name]
    rule = by_lists(tmp_path, [name for name in data["clip_ids"] if name not in test], test)
    for seed in range(5):
        split = make_split(rule, **data, seed=seed)
        assert {clips.group_number(data["groups"][i]) for i in split.val} == {1, 2}


def test_every_group_is_in_some_test_set():
    data = data_set({(k, g): g for k in "AB" for g in range(1, 11)})  # sizes 1 to 10: big groups must not be favoured
    tested = Counter(data["groups"][i] for seed in range(60) for i in set(make_split("group", **data, seed=seed).test))
    assert set(tested) == set(data["groups"])


def test_shares_of_a_large_even_set_are_80_20_twice():
    data = even(3, 25, 4)
    counts = class_counts(make_split("group", **data, seed=3), data)
    assert all(counts["test"][k] == 20 and counts["val"][k] == 16 and counts["train"][k] == 64 for k in counts["test"])
    counts = class_counts(make_split("random", **data, seed=3), data)
    assert all(counts["test"][k] == 20 and counts["val"][k] == 16 and counts["train"][k] == 64 for k in counts["test"])


@pytest.mark.parametrize("rule", ["auto", "group", "random"])
def test_tiny_sets(rule):
    data = even(6, 6, 2)
    split = make_split(rule, **data, seed=0)
    assert [len(part) for part in sides(split).values()] == [48, 12, 12]
    assert make_split("auto", **data, seed=0).rule == "group"


@pytest.mark.parametrize("data", [even(2, 3, 1), without_groups(even(2, 3, 1))])
def test_two_classes_of_three_clips(data):
    split = make_split("auto", **data, seed=0)
    assert class_counts(split, data) == {name: {"K0": 1, "K1": 1} for name in ("train", "val", "test")}


def test_a_class_of_one_clip_trains_and_a_note_says_so():
    data = data_set({("A", g): 2 for g in range(1, 7)} | {("B", g): 2 for g in range(1, 7)} | {("C", 1): 1})
    for rule in ("group", "random"):
        split = make_split(rule, **data, seed=0)
        assert data["clip_ids"].index("C/v_C_g01_c01.avi") in split.train
        assert [note for note in split.notes if "class" in note] == ["class C has one clip: it stays in training"]


def test_a_class_of_one_group_is_said_not_to_be_tested():
    data = data_set({("A", g): 2 for g in range(1, 7)} | {("B", 1): 9})
    assert "1 class has no test clip: B" in make_split("group", **data, seed=0).notes


def test_leaks_are_counted_by_hand():
    # Two groups of 50 clips a class: every test clip has a sibling in training.
    data = even(2, 2, 50)
    split = make_split("random", **data, seed=0)
    assert len(split.test) == verdict(split, data["groups"], None).share_group == 40
    assert split.sharing == 40
    mixed = [group if i in set(split.test.tolist()) else None for i, group in enumerate(data["groups"])]
    assert verdict(split, mixed, None).share_group == 0
    assert verdict(split, [None] * len(mixed), None).share_group == 0


def test_auto_keeps_groups_together_as_far_as_they_are_known():
    data = even(2, 5, 2)
    data["groups"] = [None if i % 2 and i > 6 else group for i, group in enumerate(data["groups"])]
    for rule, seed in (("auto", 0), ("auto", 1), ("group", 2)):
        split = make_split(rule, **data, seed=seed)
        assert split.rule == "group"
        known = [{data["groups"][i] for i in side} - {None} for side in sides(split).values()]
        assert sum(map(len, known)) == 10
        said = verdict(split, data["groups"], None)
        assert "; the group of 7 of 20 clips is unknown" in said.text
        assert not said.leaks
        assert split.sharing == 0


def test_without_any_group_auto_splits_by_clip_and_says_so_and_group_refuses():
    data = without_groups(even(2, 5, 2))
    split = make_split("auto", **data, seed=0)
    assert split.rule == "random"
    assert any("no clip has a group" in note for note in split.notes)
    with pytest.raises(UsageError, match="split 'group' needs groups, and none of 20 clips has one, such as 'K0/v_K0"):
        make_split("group", **data, seed=0)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_official_rule_takes_seven_groups_in_turn(number):
    data = even(2, 25, 2)
    split = make_split(f"official{number}", **data, seed=0)
    first = 7 * number - 6
    tested = {clips.group_number(data["groups"][i]) for i in split.test}
    assert tested == set(range(first, first + 7))
    val = {data["groups"][i] for i in split.val}
    assert not val & {data["groups"][i] for i in split.train}
    assert 0.15 < len(split.val) / (len(split.val) + len(split.train)) < 0.25


@pytest.mark.skipif(not UCF.is_dir(), reason="no shared folder with UCF101's lists beside the project")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_official_rule_gives_ucf101s_own_lists(number, tmp_path):
    train, test = (manifests.read_ucf_list(UCF / f"{side}list0{number}.txt") for side in ("train", "test"))
    (tmp_path / "all.txt").write_text("\n".join(train + test))
    found = find_clips.find_clips(tmp_path / "all.txt").clips
    data = {
        "clip_ids": [clip.clip_id for clip in found],
        "labels": [clip.label for clip in found],
        "groups": [clip.group for clip in found],
    }
    assert len(found) == 13320
    names = named(make_split(f"official{number}", **data, seed=0), data)
    assert names["test"] == set(test)
    assert names["train"] | names["val"] == set(train)
    assert not names["train"] & names["val"]


def test_lists_by_id_by_tail_and_by_stem(tmp_path):
    data = even(2, 6, 1)
    train = [name + " 1" for name in data["clip_ids"][:4]] + [
        "other/" + name[:-4] + ".mp4 2" for name in data["clip_ids"][6:10]
    ]
    test = ["K0/v_K0_g05_c01.mp4", "x/y/v_K1_g05_c01.avi", "K1/unheard_of.avi"]
    for name, lines in (("train.txt", train), ("test.txt", test)):
        (tmp_path / name).write_bytes("\r\n".join(lines).encode())
    split = make_split(f"list:{tmp_path}/train.txt,{tmp_path}/test.txt", **data, seed=0)
    names = named(split, data)
    assert names["test"] == {"K0/v_K0_g05_c01.avi", "K1/v_K1_g05_c01.avi"}
    assert names["train"] | names["val"] == set(data["clip_ids"][:4] + data["clip_ids"][6:10])
    assert "left out: 2 of 12 clips are in neither list" in split.notes
    assert "1 name of the test list without a clip: K1/unheard_of.avi" in split.notes


def test_lists_may_spell_letters_with_marks_otherwise(tmp_path):
    """Clips of a cache that was made on a Mac, and lists that were typed elsewhere."""
    ids = [f"{label}/u\u0308{n}.avi" for label in "AB" for n in range(4)]
    data = {"clip_ids": ids, "labels": [name[0] for name in ids], "groups": [None] * 8}
    names = [name.replace("u\u0308", "\u00fc") for name in ids]
    test = [names[0], names[4]]
    split = make_split(by_lists(tmp_path, [name for name in names if name not in test], test), **data, seed=0)
    assert named(split, data)["test"] == {ids[0], ids[4]}


def test_lists_may_lie_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = even(2, 6, 1)
    rule = by_lists(tmp_path, data["clip_ids"][1:], data["clip_ids"][:1])
    at_home = rule.replace(str(tmp_path), "~")
    assert at_home != rule
    assert named(make_split(at_home, **data, seed=0), data) == named(make_split(rule, **data, seed=0), data)


def test_a_stem_that_two_clips_share_means_neither(tmp_path):
    data = {"clip_ids": ["A/1.avi", "A/2.avi", "B/1.avi", "B/2.avi"], "labels": list("AABB"), "groups": [None] * 4}
    with pytest.raises(UsageError, match=r"^no name in .* is that of one clip: got names such as '1\.avi'"):
        make_split(by_lists(tmp_path, ["A/1.avi", "A/2.avi", "B/2.avi"], ["1.avi"]), **data, seed=0)


def test_a_stem_that_two_clips_share_means_neither_though_the_lists_have_it_once(tmp_path):
    ids = [f"{label}/{n}.avi" for label in "AB" for n in range(6)]
    data = {"clip_ids": ids, "labels": [name[0] for name in ids], "groups": [None] * 12}
    rule = by_lists(tmp_path, [name for name in ids if name[2] in "0123"], ["A/4.avi", "B/4.avi", "5.avi"])
    split = make_split(rule, **data, seed=0)
    assert [ids[i] for i in split.test] == ["A/4.avi", "B/4.avi"]
    assert "1 name of the test list without a clip: 5.avi" in split.notes


def test_names_without_a_clip_are_counted_in_both_lists(tmp_path):
    data = even(2, 6, 1)
    ids = data["clip_ids"]
    rule = by_lists(tmp_path, [*ids[:5], *ids[6:11], "K0/x.avi", "K0/y.avi"], [ids[5], ids[11], "K1/z.avi"])
    notes = make_split(rule, **data, seed=0).notes
    assert "2 names of the train list without a clip: K0/x.avi, K0/y.avi" in notes
    assert "1 name of the test list without a clip: K1/z.avi" in notes


@pytest.mark.parametrize("wrong", ["train", "test"])
def test_a_list_of_other_clips_is_named(tmp_path, wrong):
    data = even(2, 6, 1)
    lists = {"train": data["clip_ids"][:9], "test": data["clip_ids"][9:], wrong: ["Run/v_Run_g01_c01.avi"]}
    message = rf"^no name in .*{wrong}\.txt .* such as 'Run/v_Run_g01_c01\.avi', expected .* 'K0/v_K0_g01_c01\.avi'$"
    with pytest.raises(UsageError, match=message):
        make_split(by_lists(tmp_path, *lists.values()), **data, seed=0)


def test_a_clip_in_both_lists_is_refused(tmp_path):
    data = even(2, 6, 1)
    with pytest.raises(UsageError, match=r"1 clip is in both lists, such as 'K0/v_K0_g01_c01\.avi'"):
        make_split(
            by_lists(tmp_path, data["clip_ids"][:9], [*data["clip_ids"][9:], data["clip_ids"][0]]), **data, seed=0
        )


def test_list_with_groups_on_two_sides_says_that_it_leaks(tmp_path):
    data = even(2, 5, 2)  # every other clip tests, so each group is on both sides; two groups go on to validation
    split = make_split(by_lists(tmp_path, data["clip_ids"][::2], data["clip_ids"][1::2]), **data, seed=0)
    assert [len(part) for part in sides(split).values()] == [8, 2, 10]
    assert split.sharing == 10


@pytest.mark.parametrize(
    "listed", ["old/{}.mp4".format, lambda name: f"{name.lower()}.mp4"], ids=["another folder", "small letters"]
)
def test_list_of_files_with_another_ending_and_shared_names(listed, tmp_path):
    ids = [f"{label}/{n}.avi" for label in "AB" for n in range(5)]
    data = {"clip_ids": ids, "labels": [name[0] for name in ids], "groups": [None] * 10}
    other = [listed(name[:-4]) for name in ids]
    split = make_split(by_lists(tmp_path, other[:4] + other[5:9], [other[4], other[9]]), **data, seed=0)
    assert split.test.tolist() == [4, 9]


def test_small_groups_do_not_leave_validation_without_any():
    data = data_set({("A", 1): 1, ("A", 2): 1, ("A", 3): 10, ("B", 1): 1, ("B", 2): 1, ("B", 3): 10})
    for seed in range(5):
        counts = class_counts(make_split("group", **data, seed=seed), data)
        assert all(set(counts[name]) == {"A", "B"} for name in counts)


def test_a_list_from_another_system_is_read_as_extract_reads_it(tmp_path):
    """A mark of byte order, class numbers, blank lines, other line ends and separators, a space in a name."""
    (tmp_path / "test.txt").write_bytes(b"\xef\xbb\xbfA\\v 1.avi 3\r\n\r\nB/x.mp4\r\n")
    assert manifests.read_ucf_list(tmp_path / "test.txt") == ["A/v 1.avi", "B/x.mp4"]
    (tmp_path / "train.txt").write_text("".join(f"{label}/{n}.avi\n" for label in "AB" for n in range(4)))
    ids = [*manifests.read_ucf_list(tmp_path / "train.txt"), "A/v 1.avi", "B/x.mp4"]
    data = {"clip_ids": ids, "labels": [name[0] for name in ids], "groups": [None] * 10}
    split = make_split(f"list:{tmp_path}/train.txt,{tmp_path}/test.txt", **data, seed=0)
    assert split.test.tolist() == [8, 9]


@pytest.mark.parametrize("line", ["/", ".", "\\"])
def test_a_line_that_names_no_file_is_told(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"K0/v_K0_g01_c01.avi\n{line}\n")
    with pytest.raises(UsageError, match=r"list\.txt, line 2"):
        make_split(f"list:{tmp_path}/list.txt,{tmp_path}/list.txt", **even(2, 5, 2), seed=0)


@pytest.mark.parametrize(
    ("rule", "data", "message"),
    [
        ("gruop", even(2, 5, 2), "unknown split 'gruop'.*Did you mean 'group'"),
        ("group:3", even(2, 5, 2), "unknown split 'group:3'"),
        ("list", even(2, 5, 2), "expected one of.*kfold:K.*leave-one:COLUMN.*list:TRAIN,TEST.*manifest"),
        ("list:one.txt", even(2, 5, 2), "expected list:TRAIN,TEST"),
        ("list:no.txt,none.txt", even(2, 5, 2), "cannot read no.txt"),
        ("group", without_groups(even(2, 5, 2)), "none of 20 clips has one.*own features, groups beside"),
        ("official1", without_groups(even(2, 5, 2)), "20 of 20 have none.*own features.*lists: list:TRAIN,TEST$"),
        ("official1", {**even(2, 5, 2), "groups": ["gym"] * 20}, "got the group 'gym'"),
        ("official3", even(2, 5, 2), "leaves no clips to test on"),
        ("group", even(1, 5, 2), "got one class, 'K0'"),
        ("group", {"clip_ids": [], "labels": [], "groups": []}, "got no clips"),
        ("random", even(2, 1, 1), "leaves no clips to val or test on"),
        ("group", even(2, 2, 5), "leaves no clips to val on"),
    ],
)
def test_wrong_use(rule, data, message):
    with pytest.raises(UsageError, match=message):
        make_split(rule, **data, seed=0)


def test_sequences_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected as many"):
        make_split("random", clip_ids=["a"], labels=["A", "B"], groups=[None], seed=0)
    with pytest.raises(ValueError, match="columns of 1 clips: expected as many"):
        make_folds("random", clip_ids=["a", "b"], labels=["A", "B"], groups=[None] * 2, extra=[{}], seed=0)
    with pytest.raises(ValueError, match="'a' occurs twice"):
        make_split("random", clip_ids=["a", "a"], labels=["A", "B"], groups=[None, None], seed=0)


def test_sides_by_a_manifest_are_told_apart_and_those_by_a_seed_are_not():
    split = {"rule": "manifest", "train": ["a"], "val": ["b"], "test": ["c"]}
    assert sides_digest(split) == sides_digest({**split, "train": ["b"], "val": ["a"]}) != ""
    assert sides_digest(split) != sides_digest({**split, "train": ["c"], "test": ["a"]})
    assert sides_digest({**split, "rule": "group"}) == ""


def test_the_order_of_the_clips_makes_no_other_sides():
    split = {"rule": "manifest", "train": ["a"], "val": ["b"], "test": ["c", "d"]}
    assert sides_digest(split) == sides_digest({**split, "test": ["d", "c"]})


def test_rules_are_shown_without_folders():
    assert short_rule("list:/a/train.txt,b/test.txt") == "list:train.txt,test.txt"
    assert short_rule("leave-one:a/b") == "leave-one:a/b"


def test_a_list_never_takes_a_file_of_the_same_name_from_another_class(tmp_path):
    ids = [f"{name}/{number:03d}.mp4" for name in ("A", "B") for number in range(1, 7)][1:]  # no A/001.mp4
    data = {"clip_ids": ids, "labels": [name[0] for name in ids], "groups": [None] * len(ids)}
    test = ["A/001.mp4", "A/002.mp4", "B/002.mp4"]
    split = make_split(by_lists(tmp_path, [name for name in ids if name not in test], test), **data, seed=0)
    assert [ids[i] for i in split.test] == ["A/002.mp4", "B/002.mp4"]
    assert any("1 name of the test list without a clip: A/001.mp4" in note for note in split.notes)


def test_a_list_with_class_folders_finds_clips_that_lie_elsewhere(tmp_path):
    ids = [f"all/{name}_{number}.mp4" for name in "AB" for number in range(6)]
    data = {"clip_ids": ids, "labels": [name[4] for name in ids], "groups": [None] * len(ids)}
    names = [f"{name[4].lower()}/{name[4:-4]}.avi" for name in ids]
    split = make_split(by_lists(tmp_path, names[:5] + names[6:11], [names[5], names[11]]), **data, seed=0)
    assert [ids[i] for i in split.test] == [ids[5], ids[11]]


def test_a_file_name_that_a_list_has_in_several_folders_means_no_clip_by_itself(tmp_path):
    """As where only some classes of the lists are here."""
    ids = [f"{name}/{number:03d}.mp4" for name, count in (("A", 6), ("B", 8)) for number in range(count)]
    data = {"clip_ids": ids, "labels": [name[0] for name in ids], "groups": [None] * len(ids)}
    test = ["A/005.mp4", "B/005.mp4", "C/006.mp4", "D/006.mp4"]
    split = make_split(by_lists(tmp_path, [name for name in ids if name not in test], test), **data, seed=0)
    assert [ids[i] for i in split.test] == ["A/005.mp4", "B/005.mp4"]


def test_a_list_that_names_a_class_never_takes_a_file_of_another_from_elsewhere(tmp_path):
    """All clips lie in one folder, and the one of this name is of the other class."""
    ids = [f"all/{number}.mp4" for number in range(12)]
    data = {"clip_ids": ids, "labels": list("A" * 6 + "B" * 6), "groups": [None] * 12}
    train = [f"A/{n}.mp4" for n in range(4)] + [f"B/{n}.mp4" for n in range(6, 10)]
    split = make_split(by_lists(tmp_path, train, ["A/4.mp4", "B/5.mp4", "B/10.mp4"]), **data, seed=0)
    assert [ids[i] for i in split.test] == ["all/4.mp4", "all/10.mp4"]
    assert "1 name of the test list without a clip: B/5.mp4" in split.notes
