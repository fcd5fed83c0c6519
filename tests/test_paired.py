from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitrec_cache import paired
from fitrec_cache.metrics import wilson
from fitrec_cache.paired import bootstrap_interval, exact_p, holm


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
def test_with_one_run_and_no_groups_p_is_mcnemars_twice_the_smaller_binomial_tail(only_a, only_b, same):
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    gain = np.array([1.0] * only_a + [-1.0] * only_b + [0.0] * same)
    assert exact_p(gain, [str(i) for i in range(len(gain))]) == pytest.approx(min(1.0, 2 * tail))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.integers(1, 3))
def test_p_is_the_share_of_signs_that_give_as_large_a_gain(sums, clips):
    """Every way to toss the signs, one after the other; each unit's gain is spread over some clips."""
    totals = [
        sum(s * g for s, g in zip(signs, sums, strict=True)) for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    expected = np.mean([abs(total) >= abs(sum(sums)) for total in totals])
    gain = np.array([[g] + [1] * (clips - 1) + [-1] * (clips - 1) for g in sums], dtype=float)
    units = np.repeat([f"g{i}" for i in range(len(sums))], gain.shape[1])
    assert exact_p(gain.ravel(), list(units)) == pytest.approx(expected)


def test_holm_by_hand_and_in_any_order():
    # 0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.2 x 1 = 0.2
    expected = {0.01: 0.04, 0.02: 0.06, 0.03: 0.06, 0.2: 0.2}
    for order in itertools.permutations(expected):
        assert holm(order) == pytest.approx([expected[p] for p in order])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_of_an_accuracy_is_that_of_the_binomial():
    right = np.array([1.0] * 240 + [0.0] * 160)
    low, high = bootstrap_interval(right, np.ones(400), [str(i) for i in range(400)])
    assert (low, high) == pytest.approx(wilson(240 / 400, 400), abs=0.006)


def test_clips_of_one_group_count_as_one():
    """100 groups of four equal clips: the interval is that of 100 clips, not of 400."""
    right = np.repeat([1.0] * 60 + [0.0] * 40, 4)
    groups = [str(i // 4) for i in range(400)]
    assert bootstrap_interval(right, np.ones(400), groups) == pytest.approx(wilson(60 / 100, 100), abs=0.01)


def test_units_of_different_weight_give_the_ratio_estimator():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 50)
    unit = np.repeat(np.arange(50), sizes)
    gain = rng.integers(-1, 2, len(unit)).astype(float)
    drawn = rng.integers(0, 50, (4000, 50))  # a second implementation: draw units, add up their clips
    sums = np.array([gain[unit == u].sum() for u in range(50)])
    ratios = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    expected = np.quantile(ratios, (0.025, 0.975))
    found = bootstrap_interval(gain, np.ones(len(unit)), [str(u) for u in unit])
    assert found == pytest.approx(tuple(expected), abs=0.012)


def test_the_interval_is_the_same_every_time_and_blocks_do_not_matter(monkeypatch):
    right = np.random.default_rng(0).integers(0, 2, 60).astype(float)
    units = [str(i) for i in range(60)]
    first = bootstrap_interval(right, np.ones(60), units)
    monkeypatch.setattr(paired, "_AT_ONCE", 10_000)
    assert bootstrap_interval(right, np.ones(60), units) == first


def test_no_clips_are_refused():
    with pytest.raises(ValueError, match="no clips"):
        bootstrap_interval(np.array([]), np.array([]), [])
