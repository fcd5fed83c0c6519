from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from fitrec_cache.evaluation.metrics import evaluate, interval_by_unit, wilson

NAMES = ["Curl", "Lunge", "Squat"]


def one_hot(guesses, n_classes):
    return np.eye(n_classes)[guesses]


def wilson_closed_formula(k, n, z=1.959963984540054):
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return centre - half, centre + half


def test_three_classes_worked_out_by_hand():
    # Curl: 2 of 3 clips found. Lunge: 1 of 2. Squat: 1 of 1. Guesses: Curl 3 (2 right), Lunge 1, Squat 2.
    truth = np.array([0, 0, 0, 1, 1, 2])
    figures = evaluate(one_hot([0, 0, 2, 1, 0, 2], 3), truth, NAMES)
    assert figures.n == 6
    assert figures.confusion.tolist() == [[2, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert figures.confusion.dtype == np.int64
    assert figures.accuracy == pytest.approx(4 / 6)
    assert figures.precision_macro == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert figures.recall_macro == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert figures.guessing == pytest.approx(3 / 6)  # always Curl
    assert figures.f1_macro == pytest.approx(2 / 3)  # each class: 2/3
    assert figures.precision_weighted == pytest.approx((3 * 2 / 3 + 2 * 1 + 1 * 1 / 2) / 6)
    assert figures.recall_weighted == pytest.approx(figures.accuracy)
    assert figures.f1_weighted == pytest.approx(2 / 3)
    assert figures.per_class[1] == pytest.approx({"label": "Lunge", "n": 2, "precision": 1, "recall": 0.5, "f1": 2 / 3})


def test_top5_counts_the_fifth_place_and_not_the_sixth():
    logits = np.tile(np.arange(7.0, 0.0, -1.0), (7, 1))  # classes ranked 0, 1, .. 6 for each clip
    figures = evaluate(logits, np.arange(7), [str(k) for k in range(7)])
    assert figures.top5_accuracy == pytest.approx(5 / 7)
    assert figures.accuracy == pytest.approx(1 / 7)


def test_top5_of_fewer_than_five_classes_is_one():
    assert evaluate(one_hot([1, 1], 3), [0, 2], NAMES).top5_accuracy == 1.0


def test_equal_logits_rank_in_label_order_everywhere():
    figures = evaluate(np.zeros((2, 7)), [0, 5], [str(k) for k in range(7)])
    assert figures.accuracy == 0.5
    assert figures.top5_accuracy == 0.5


def test_equal_logits_of_many_classes_rank_in_label_order():
    """A quicker sort keeps the order of a few equal ones only."""
    logits = np.random.default_rng(0).integers(0, 2, (50, 101)).astype(float)  # many tied for the first place
    first = (logits == 1).argmax(axis=1)
    assert evaluate(logits, first, [str(k) for k in range(101)]).accuracy == 1.0


def test_guessing_names_the_commonest_true_class():
    assert evaluate(one_hot([1, 1, 1], 2), [0, 0, 1], ["Hop", "Squat"]).guessing == pytest.approx(2 / 3)


def test_averages_run_over_the_classes_in_the_test_set():
    # Squat has no clip but takes one guess: it costs Lunge recall and is in no average. Warnings are errors here.
    figures = evaluate(one_hot([0, 2, 1], 4), [0, 1, 1], [*NAMES, "Plank"])
    assert figures.recall_macro == pytest.approx((1 + 0.5) / 2)
    assert figures.precision_macro == pytest.approx(1.0)
    assert figures.f1_macro == pytest.approx((1 + 2 / 3) / 2)
    assert figures.recall_weighted == pytest.approx(figures.accuracy)
    assert figures.per_class[2] == {"label": "Squat", "n": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert figures.confusion.shape == (4, 4)


def test_one_class_in_the_test_set():
    figures = evaluate(one_hot([1, 0], 3), [1, 1], NAMES)
    assert figures.recall_macro == 0.5


def test_wilson_of_the_papers_best_row():
    low, high = wilson(631 / 676, 676)
    assert (round(low, 3), round(high, 3)) == (0.912, 0.950)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_closed_formula(counts):
    correct, n = counts
    assert wilson(correct / n, n) == pytest.approx(wilson_closed_formula(correct, n), abs=1e-9)


def test_no_interval_leaves_0_to_1():
    for n in range(1, 300):
        assert wilson(0, n)[0] >= 0
        assert wilson(1, n)[1] <= 1


@pytest.mark.parametrize(("share", "n"), [(-0.1, 4), (1.1, 4), (math.nan, 4), (0.5, 0)])
def test_wilson_refuses_what_is_no_share(share, n):
    with pytest.raises(ValueError, match="expected a share from 0 to 1, and more than 0 clips"):
        wilson(share, n)


def test_clips_of_one_recording_widen_the_interval():
    """60 of 100 recordings right, four clips each: the interval is that of 100 clips, not of 400."""
    truth = [0] * 400
    logits = np.repeat([[1.0, 0.0]] * 60 + [[0.0, 1.0]] * 40, 4, axis=0)
    figures = evaluate(logits, truth, ["Hop", "Squat"], units=[str(i // 4) for i in range(400)])
    assert figures.accuracy_ci95 == pytest.approx(wilson_closed_formula(60, 100), abs=0.01)
    alone = evaluate(logits, truth, ["Hop", "Squat"], units=[str(i) for i in range(400)])
    assert alone.accuracy_ci95 == pytest.approx(wilson_closed_formula(240, 400))


def test_few_recordings_that_are_alike_make_no_narrow_interval():
    """Two recordings with one of two clips right each say nearly nothing: Student's t of one degree is 12.706."""
    logits = np.array([[1.0, 0.0], [0.0, 1.0]] * 2)
    figures = evaluate(logits, [0] * 4, ["Hop", "Squat"], units=list("aabb"))
    worth = 4 * (1.959964 / 12.706205) ** 2
    assert figures.accuracy_ci95 == pytest.approx(wilson_closed_formula(worth / 2, worth), abs=1e-6)
    assert figures.accuracy_ci95[0] < 0.01


def test_uneven_recordings_by_hand():
    """Recordings of 1, 1 and 2 clips with 1, 0 and 2 right: 3 / 4, off it by 1/4, -3/4 and 1/2 clips.

    Scatter: (1/16 + 9/16) / 4^2 / (3/4) + (4/16) / 4^2 / (2/4) = 1/12, as that of 3/16 / (1/12) = 9/4 clips. They are
    worth 4^2 / (1 + 1 + 4) = 8/3 recordings of one size: t of 5/3 degrees.
    """
    n = 9 / 4 * (1.959964 / student.ppf(0.975, 5 / 3)) ** 2
    found = interval_by_unit(np.array([1.0, 0, 1, 1]), np.ones(4), list("abcc"))
    assert found == pytest.approx(wilson_closed_formula(0.75 * n, n), abs=1e-6)


def test_recordings_that_are_worth_less_than_two_have_one_degree_of_freedom():
    """Recordings of 3 and 1 clips with 2 and 1 right: alike enough for 9 clips, of which there are 4.

    They are worth 4^2 / (9 + 1) = 1.6 recordings of one size.
    """
    n = 4 * (1.959964 / 12.706205) ** 2
    found = interval_by_unit(np.array([1.0, 1, 0, 1]), np.ones(4), list("aaab"))
    assert found == pytest.approx(wilson_closed_formula(0.75 * n, n), abs=1e-6)


@pytest.mark.parametrize(
    ("units", "n"),
    [
        ([str(i // 4) for i in range(40)], 10),
        (list("abcc"), 8 / 3),  # as many of one size as these are worth: 4^2 / (1 + 1 + 4)
    ],
)
def test_where_all_clips_are_right_or_wrong_recordings_count(units, n):
    ones = np.ones(len(units))
    assert interval_by_unit(ones, ones, units) == pytest.approx(wilson_closed_formula(n, n))
    assert interval_by_unit(0 * ones, ones, units) == pytest.approx(wilson_closed_formula(0, n))


@pytest.mark.parametrize("right", [[1.0, 1, 0], [1.0, 1, 1]])
def test_one_recording_says_nothing_of_others(right):
    assert interval_by_unit(np.array(right), np.ones(3), list("aaa")) == (0, 1)


@pytest.mark.parametrize(
    ("sizes", "least"), [([2, 3, 4, 5, 6, 7, 4] * 2, 0.92), ([6] * 10, 0.92), ([600, 250, 190, *[10] * 27], 0.85)]
)
def test_intervals_by_unit_hold_the_truth_as_often_as_they_say(sizes, least):
    """Recordings of their own accuracies, beta(2, 2), 50 % on average; a bootstrap by recording held it less often."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(len(sizes)), sizes)
    names = units.astype(str).tolist()
    held, wide = 0, 0.0
    for _ in range(400):
        right = (rng.random(len(units)) < rng.beta(2, 2, len(sizes))[units]).astype(float)
        low, high = interval_by_unit(right, np.ones(len(units)), names)
        held += low <= 0.5 <= high
        wide += (high - low) / 400
    assert least <= held / 400 <= 0.985
    assert wide < 0.6


def test_seeds_make_no_interval_narrower():
    right, units = np.array([1.0, 1, 0, 1, 1, 0, 1, 1]), list("aabbccdd")
    once = interval_by_unit(right, np.ones(8), units)
    assert interval_by_unit(3 * right, np.full(8, 3.0), units) == pytest.approx(once)


def test_evaluate_gives_the_interval_of_its_own_counts():
    figures = evaluate(one_hot([0, 0, 2, 1, 0, 2], 3), [0, 0, 0, 1, 1, 2], NAMES)
    assert figures.accuracy_ci95 == pytest.approx(wilson_closed_formula(4, 6))


def test_to_dict_survives_json_with_the_documented_keys():
    figures = evaluate(one_hot([0, 1, 2], 3).astype(np.float32), np.array([0, 1, 1], dtype=np.int32), NAMES).to_dict()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert set(figures) == {
        "n", "accuracy", "accuracy_ci95", "top5_accuracy", "precision_weighted", "recall_weighted", "f1_weighted",
        "precision_macro", "recall_macro", "f1_macro", "per_class", "confusion", "guessing",
    }  # fmt: skip
    assert figures["accuracy_ci95"] == pytest.approx(wilson_closed_formula(2, 3))
    assert isinstance(figures["accuracy_ci95"], list)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1.0, np.nan, 0.0]], [0], "1 of 1 clips are not finite"),
        ([[1.0, np.inf, 0.0]], [0], "not finite"),
        ([[1.0, 0.0]], [0], r"expected \(N, 3\)"),
        ([[1.0, 0.0, 0.0]], [0, 1], r"expected \(1,\)"),
        (np.zeros((0, 3)), [], "at least one clip"),
        ([[1.0, 0.0, 0.0]], [3], "expected 0 to 2"),
        ([[1.0, 0.0, 0.0]], [-1], "expected 0 to 2"),
        ([[1.0, 0.0, 0.0]], [0.0], "float64"),
    ],
)
def test_what_cannot_be_judged_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate(logits, labels, NAMES)


def test_units_may_be_an_array_and_are_one_a_clip():
    logits, truth = np.eye(4), np.arange(4)
    wanted = evaluate(logits, truth, "abcd", units=["x", "x", "y", "z"])
    assert evaluate(logits, truth, "abcd", units=np.array(["x", "x", "y", "z"])).accuracy_ci95 == wanted.accuracy_ci95
    with pytest.raises(ValueError, match="units of 2 clips: expected one for each of 4"):
        evaluate(logits, truth, "abcd", units=["x", "y"])
    with pytest.raises(ValueError, match=r"labels: got .* such as .*a.*, expected class numbers"):
        evaluate(logits, np.array(list("abcd")), "abcd")
