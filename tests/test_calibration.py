from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.stats
import torch

from fitrec_cache.evaluation.calibration import (
    Calibration,
    auroc,
    bin_numbers,
    calibrate,
    calibration_error,
    expected_error,
    remarks,
)


def alone(n):
    """Return the units of n clips that belong to nothing."""
    return [f"clip {i}" for i in range(n)]


def draws(n, scale, seed=0):
    """Return logits whose softmax is the truth's distribution, times ``scale``, and labels drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_head_too_sure(scale):
    logits, labels = draws(20_000, scale)
    found = calibrate(logits, labels)
    assert found.temperature == pytest.approx(scale, rel=0.05)
    error, _ = calibration_error(found.probabilities(logits), labels)
    assert error < 0.02
    if scale == 3:
        assert calibration_error(Calibration().probabilities(logits), labels)[0] > 0.1


def test_the_temperature_is_where_the_loss_is_lowest():
    logits, labels = draws(300, 2.0)
    found = calibrate(logits, labels).temperature
    x, y = torch.from_numpy(logits), torch.from_numpy(labels)
    losses = {t: float(torch.nn.functional.cross_entropy(x / t, y)) for t in (found, 0.97 * found, 1.03 * found)}
    assert min(losses, key=losses.get) == found


def test_the_error_worked_out_by_hand():
    # Bin 10 of 15 holds 0.7 and 0.7 (one right), bin 13 holds 0.9 (right): 2/3 * |0.7 - 0.5| + 1/3 * |0.9 - 1|
    error, bins = calibration_error([[0.7, 0.3], [0.7, 0.3], [0.1, 0.9]], [0, 1, 1])
    assert error == pytest.approx(2 / 3 * 0.2 + 1 / 3 * 0.1)
    assert [(b["n"], b["accuracy"]) for b in bins] == [(2, 0.5), (1, 1.0)]
    assert (bins[0]["low"], bins[1]["high"]) == (10 / 15, 14 / 15)


def test_certainty_is_in_the_last_bin():
    assert bin_numbers([0.0, 0.93, 0.94, 1.0]).tolist() == [0, 13, 14, 14]
    error, bins = calibration_error([[1.0, 0.0], [0.0, 1.0], [0.97, 0.03]], [0, 0, 0])
    assert [(b["n"], b["high"]) for b in bins] == [(3, 1.0)]
    assert error == pytest.approx(2.97 / 3 - 2 / 3)


CASES = [(10, 0.05, 0), (19, 0.05, 1 / 20), (40, 0.1, 4 / 41), (9, 0.3, 0.3)]


@pytest.mark.parametrize(("n", "rate", "expected"), CASES)
def test_new_clips_of_the_same_kind_are_turned_away_no_more_often_than_asked(n, rate, expected):
    """Of n clips and a new one each is as likely to be among the k least sure: k / (n + 1) of new ones."""
    logits, labels = draws(600 * (n + 50), 1.0)
    turned = []
    for batch, truth in zip(np.split(logits, 600), np.split(labels, 600), strict=True):
        found = calibrate(batch[:n], truth[:n], false_alarm_rate=rate)
        turned.append((found.probabilities(batch[n:]).max(axis=1) < found.threshold).mean())
    assert expected <= rate
    assert np.mean(turned) == pytest.approx(expected, abs=3 * np.std(turned) / 600**0.5 + 1e-9)


@pytest.mark.parametrize(("groups", "of", "alike"), [(10, 10, 0.9), (20, 5, 0.9), (40, 5, 0.5), (30, 4, 1.0)])
def test_clips_of_a_new_recording_are_turned_away_no_more_often_than_asked(groups, of, alike):
    """How sure answers are is alike within a recording: counted clip by clip, more would be turned away."""
    rng, rounds, turned, clip_by_clip = np.random.default_rng(0), 1500, [], []
    units = np.repeat(np.arange(groups), of).astype(str).tolist()
    for _ in range(rounds):
        own = np.repeat(rng.normal(size=groups + 1), of)
        sure = np.exp(alike**0.5 * own + (1 - alike) ** 0.5 * rng.normal(size=len(own)))
        logits = np.stack([sure, np.zeros_like(sure)], axis=1)
        truth = np.zeros(groups * of, int)
        truth[0] = 1  # else there would be no end to the best temperature
        for found, kept in ((units, turned), (None, clip_by_clip)):
            fitted = calibrate(logits[:-of], truth, units=found, false_alarm_rate=0.1)
            kept.append((fitted.probabilities(logits[-of:]).max(axis=1) < fitted.threshold).mean())
    assert np.mean(turned) <= 0.1 + 3 * np.std(turned) / rounds**0.5
    assert np.mean(turned) < np.mean(clip_by_clip) or alike == 1


def test_groups_are_counted_for_the_threshold_and_said():
    """Ten of two clips: 1 / 11 is the least that can be told, though there are 20 clips."""
    logits = np.stack([np.linspace(1, 3, 20), np.zeros(20)], axis=1)
    truth, units = np.r_[1, np.zeros(19, int)], np.repeat(np.arange(10), 2).astype(str).tolist()
    assert calibrate(logits, truth, false_alarm_rate=0.05).threshold > 0
    blind = calibrate(logits, truth, units=units, false_alarm_rate=0.05)
    assert blind.threshold == 0
    (said,) = remarks([(blind, units)])
    assert "needs 19 groups of validation clips, and there are 10. Film more" in said
    found = calibrate(logits, truth, units=units, false_alarm_rate=0.14)  # 1/11 + 1/22: below the second clip
    assert found.threshold == pytest.approx(found.probabilities(logits)[1].max())


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_the_error_that_chance_alone_makes(n):
    """Against labels drawn from the stated probabilities themselves."""
    logits, _ = draws(n, 1.0)
    p = Calibration().probabilities(logits)
    rng = np.random.default_rng(1)
    drawn = [(p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1) for _ in range(400)]
    by_chance = np.mean([calibration_error(p, d)[0] for d in drawn])
    assert expected_error(p, drawn[0], [f"{i}" for i in range(n)]) == pytest.approx(by_chance, rel=0.1)


def test_clips_of_one_recording_are_off_together_by_chance():
    """Groups of ten that come out right or wrong as one, against the error over many draws of them."""
    logits, _ = draws(60, 1.0)
    p = np.repeat(Calibration().probabilities(logits), 10, axis=0)
    rng = np.random.default_rng(1)
    once = p[::10].cumsum(axis=1)
    drawn = [np.repeat((once > rng.random((60, 1))).argmax(axis=1), 10) for _ in range(400)]
    by_chance = np.mean([calibration_error(p, d)[0] for d in drawn])
    units = [f"{i // 10}" for i in range(600)]
    assert np.mean([expected_error(p, d, units) for d in drawn]) == pytest.approx(by_chance, rel=0.1)
    assert expected_error(p, drawn[0], [f"{i}" for i in range(600)]) < by_chance / 2


def test_of_one_recording_all_may_be_off_together_by_chance():
    p, targets = np.tile([0.5, 0.5], (100, 1)), np.arange(100) % 2
    alone = expected_error(p, targets, [f"{i}" for i in range(100)])
    assert expected_error(p, targets, ["a"] * 100) == pytest.approx(10 * alone)  # as one clip: the root of 100
    assert alone == pytest.approx(np.sqrt(2 / np.pi) * 0.5 / 10)
    more = np.vstack([p, [[0.9, 0.1]] * 2])  # two clips of others, in another bin, do not change that
    assert expected_error(more, [*targets, 0, 1], [*["a"] * 100, "b", "c"]) > 9 * alone
    uneven = expected_error(p, [0] * 99 + [1], ["a"] * 99 + ["b"])  # nearly as of one
    assert uneven == pytest.approx(alone * np.sqrt((99**2 + 1) / 100))


def test_how_alike_clips_of_one_recording_are_by_hand():
    """Three pairs of clips at 1/2, of which two right, two wrong, and one either way: 1/2 off each time.

    Between pairs (1/2 + 1/2 + 0) / 2 degrees, within (6/4 - 1) / 3: alike by (1/2 - 1/6) / (1/2 + 1/6) = 1/2. So the
    variance is that of six clips, 6/4, times 1 + 1/2.
    """
    found = expected_error(np.full((6, 2), 0.5), [0, 0, 1, 1, 0, 1], list("aabbcc"))
    assert found == pytest.approx(np.sqrt(2 / np.pi * 6 / 4 * 1.5) / 6)


def test_the_threshold_is_of_calibrated_probabilities():
    """5 % of 300 + 1: the 15th least sure, below which are 14."""
    logits, labels = draws(300, 3.0)
    found = calibrate(logits, labels)
    assert found.temperature > 2
    assert (found.probabilities(logits).max(axis=1) < found.threshold - 1e-12).sum() == 14


def test_a_share_that_is_met_exactly_counts():
    """29 of 99 + 1 are 29 %, though 0.29 x 100 is a little less in binary."""
    logits = np.stack([np.linspace(0.01, 3, 99), np.zeros(99)], axis=1)
    found = calibrate(logits, np.zeros(99, int), false_alarm_rate=0.29)
    assert found.threshold == pytest.approx(1 / (1 + np.exp(-logits[28, 0] / found.temperature)))


@pytest.mark.parametrize(
    ("n", "step"), [(1, 0.01), (2, 0.01), (7, 0.01), (8, 0.01), (9, 0.01), (18, 0.001), (150, 1e-4)]
)
def test_the_rate_that_is_advised_is_the_lowest_that_sets_a_threshold(n, step):
    logits, truth = np.tile([[2.0, 0.0]], (n, 1)), np.zeros(n, int)
    blind = calibrate(logits, truth, false_alarm_rate=0.004)
    (said,) = remarks([(blind, alone(n + 1)), (blind, alone(n))])
    rate = float(re.search(r"--false-alarm-rate ([\d.]+)` or higher", said)[1])
    assert calibrate(logits, truth, false_alarm_rate=rate).threshold > 0
    assert calibrate(logits, truth, false_alarm_rate=rate - step).threshold == 0


def test_what_few_clips_cannot_tell_is_left_and_said():
    found = calibrate(20 * np.eye(3), [0, 1, 2])
    assert found.threshold == 0.0
    (said,) = remarks([(found, alone(3))])
    assert "needs 19 validation clips, and there are 3." in said
    (alike,) = remarks([(found, ["ann"] * 3)])
    assert "needs 19 groups of validation clips, and there is 1." in alike
    assert said.startswith('no video will be answered "unknown", whatever it shows: rejecting only 5% of known clips')
    assert (
        "Film more, train with `train-head --false-alarm-rate 0.25` or higher, or give `predict --unknown-below P`"
        in said
    )
    assert remarks([(Calibration(temperature=1.3, threshold=0.2, false_alarm_rate=0.05), alone(40))]) == []


@pytest.mark.parametrize(("n", "scale"), [(3, 20), (3, 200), (39, 20), (39, 200)])
def test_where_all_is_right_half_a_clip_of_any_class_keeps_answers_from_certainty(scale, n):
    """Of n + 1/2 clips, n right and half a one with an even chance: 1 - p = (1 - 1 / K) / (2 n + 1)."""
    logits = scale * np.eye(3)[np.arange(n) % 3]
    found = calibrate(logits, np.arange(n) % 3)
    assert found.probabilities(logits).max(axis=1) == pytest.approx(1 - 2 / 3 * 0.5 / (n + 0.5), abs=1e-4)


@pytest.mark.parametrize("n", [6, 16, 300])
def test_few_clips_do_not_make_answers_far_surer_than_the_head(n):
    """The temperature is where a grid of them has the highest product of probabilities and normal density."""
    logits, labels = draws(n, 0.3, seed=n)
    found = calibrate(logits, labels).temperature
    logs = np.linspace(np.log(0.1), 0, 2000)
    p = [torch.log_softmax(torch.from_numpy(logits / np.exp(x)), 1)[range(n), labels].sum() for x in logs]
    best = np.exp(logs[np.argmax(np.array(p) + scipy.stats.norm(0, 0.5).logpdf(logs))])
    alone = np.exp(logs[np.argmax(p)])
    assert found == pytest.approx(best, rel=0.01)
    assert alone < found < 1
    assert n < 300 or found == pytest.approx(alone, rel=0.05)


@pytest.mark.parametrize("n", [12, 20, 300])
def test_a_head_that_errs_gets_the_temperature_of_its_clips_alone(n):
    """Few clips are no reason to be more modest than they say, if the head is surer."""
    logits = 6 * np.eye(4)[np.arange(n) % 4]
    truth = np.arange(n) % 4
    truth[0] = 1  # one is wrong
    sure = (n - 1) / n  # of clips with the same margin the best answers are as sure as they are right
    found = calibrate(logits, truth)
    assert found.probabilities(logits).max(axis=1) == pytest.approx(sure, abs=1e-3)


def test_what_several_runs_could_not_tell_is_said_once():
    hot, blind = Calibration(temperature=100, threshold=0.2, false_alarm_rate=0.05), Calibration(false_alarm_rate=0.05)
    sound = Calibration(temperature=1.3, threshold=0.2, false_alarm_rate=0.05)
    first, second = remarks([(hot, alone(16)), (blind, alone(14)), (sound, alone(20)), (hot, alone(18))])
    assert first.startswith("do not rely on probabilities: by 16 to 18 validation clips the head is far overconfident")
    assert first.endswith(" (2 of 4 runs)")
    assert "needs 19 validation clips, and there are 14." in second
    assert second.endswith(" (1 of 4 runs)")


def test_where_groups_of_one_run_are_known_it_is_groups_that_are_too_few():
    blind = Calibration(false_alarm_rate=0.05)
    (said,) = remarks([(blind, alone(14)), (blind, ["ann"] * 7 + ["bo"] * 7)])
    assert "needs 19 groups of validation clips, and there are 2 to 14. Film more" in said
    (said,) = remarks([(blind, alone(14)), (blind, ["ann"] * 7)])
    assert "and there are 1 to 14. Film more" in said


def test_without_a_false_alarm_rate_no_threshold_is_missed():
    assert remarks([(Calibration(temperature=1.3), alone(40))]) == []
    assert remarks([(Calibration(temperature=99.5), alone(40))]) == []


def test_a_head_that_is_never_right_is_as_good_as_a_guess():
    wrong = calibrate(20 * np.eye(3), [1, 2, 0])  # the hotter the better
    assert wrong.temperature == 100
    assert wrong.probabilities(20 * np.eye(3)) == pytest.approx(1 / 3, abs=0.05)
    assert "or no better than a guess" in remarks([(wrong, alone(3))])[0]


@pytest.mark.parametrize("scale", [0.3, 9.0, 11.0, 60.0])
def test_however_sure_a_head_is_its_temperature_is_found(scale):
    """Logits of a known scale on which the labels depend: the temperature is the scale, but for chance."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from the softmax of these logits
    assert calibrate(scale * logits, labels).temperature == pytest.approx(scale, rel=0.1)


def test_a_rate_of_nearly_all_turns_away_all_but_the_surest():
    found = calibrate(np.diag(np.arange(1.0, 6.0)), np.arange(5), false_alarm_rate=1 - 1e-11)
    assert found.threshold == found.probabilities(np.diag(np.arange(1.0, 6.0))).max()


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    known, unknown = rng.integers(0, 10, 40), rng.integers(0, 8, 30)
    pairs = [(a > b) + 0.5 * (a == b) for a in known for b in unknown]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))


def test_each_clip_has_the_weight_of_its_own_group_for_the_threshold():
    """Sorted, the group of one clip comes first, 1/3; below the first of the three others a new clip is by 2/3."""
    logits = np.stack([[1.0, 1.1, 1.2, 0.5], np.zeros(4)], axis=1)
    found = calibrate(logits, [0, 1, 0, 0], units=["b", "b", "b", "a"], false_alarm_rate=0.7)
    assert found.threshold == pytest.approx(found.probabilities(logits)[0].max())
