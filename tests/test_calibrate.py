from __future__ import annotations

import numpy as np
import pytest
import torch

from fitrec_cache.calibrate import Calibration, auroc, calibrate, calibration_error


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


def test_the_threshold_turns_away_the_share_that_was_asked_for():
    logits, labels = draws(400, 1.0)
    for rate in (0.0, 0.05, 0.2):
        found = calibrate(logits, labels, false_alarm_rate=rate)
        surest = found.probabilities(logits).max(axis=1)
        assert (surest < found.threshold).mean() == pytest.approx(rate)


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    known, unknown = rng.integers(0, 10, 40), rng.integers(0, 8, 30)
    pairs = [(a > b) + 0.5 * (a == b) for a in known for b in unknown]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
