from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.training import fit
from fitrec_cache.training import training_time as module
from fitrec_cache.training.training_time import training_seconds, usual_sides
from fitrec_cache.wording import roughly

NATIVE = get_recipe("native")


def test_all_steps_of_all_trainings_are_counted(monkeypatch):
    """Of 640, 160 and 200 clips: 20 steps an epoch, 25 with validation clips, 32 with all; 50 epochs make 1,000."""
    seconds, seen = {"mean": 0.001, "vit-lstm": 0.01}, []
    monkeypatch.setattr(module, "step_seconds", lambda config, *_: seen.append(config) or seconds[config.variant])
    given = {"sides": (640, 160, 200), "n_classes": 10, "frames": 20, "seeds": 3, "recipe": NATIVE}
    both = training_seconds([("vit-lstm", 768, 0), ("mean", 96, 30)], **given)
    assert both == pytest.approx(3 * (50 * (20 + 25) * 0.011 + 50 * 32 * 0.01))
    assert [(c.input_dim, c.n_classes, c.components) for c in seen] == [(768, 10, 426), (96, 10, 66)]
    assert [c.seen_dim for c in seen] == [426, 66 + 2 * 30]
    alone = training_seconds([("mean", 96, 0)], **given | {"recipe": NATIVE.change(epochs=7, refit=False), "seeds": 1})
    assert alone == pytest.approx(7 * (20 + 32) * 0.001)


@pytest.mark.parametrize(("variant", "n"), [("mean", 5), ("vit-lstm", 40), ("efficientnet-lstm-attention", 40)])
def test_a_step_is_the_median_of_a_few_after_one_to_warm_up(variant, n, monkeypatch):
    ticks = iter([0, 90, 100, 101, 200, 205, 300, 303, 400, 402, 500, 507])  # 90 to warm up; 1, 5, 3, 2, 7
    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    config = NATIVE.head_config(variant, (n, 6, 8), n_classes=3, n_train=n, attention=None)
    state = torch.get_rng_state()
    assert fit.step_seconds(config, NATIVE, n) == 3
    assert torch.equal(torch.get_rng_state(), state)  # or seeds would give other heads
    assert list(ticks) == []


@pytest.mark.parametrize("n", [3, 10, 999, 1000])
def test_sides_are_together_all_clips(n):
    assert sum(usual_sides(n)) == n
    assert min(usual_sides(n)) >= 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59, "less than a minute"),
        (61, "about 1 minute"),
        (149, "about 2 minutes"),
        (25 * 60, "about 20 minutes"),
        (58 * 60, "about 60 minutes"),
        (61 * 60, "about 1 hour"),
        (47 * 3600, "about 50 hours"),
        (60 * 3600, "about 2 days"),
    ],
)
def test_a_rough_time_has_one_digit(seconds, words):
    assert roughly(seconds) == words
