from __future__ import annotations

import copy

import pytest
import torch
from test_imports import loaded

from fitrec_cache.training.adamw import AdamW


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_it_is_pytorchs_to_the_last_bit(weight_decay):
    torch.manual_seed(0)
    mine = torch.nn.Sequential(torch.nn.Linear(7, 33), torch.nn.ReLU(), torch.nn.Linear(33, 3))
    theirs = copy.deepcopy(mine)
    one = AdamW(mine.parameters(), weight_decay=weight_decay)
    other = torch.optim.AdamW(theirs.parameters(), weight_decay=weight_decay, fused=True)
    for step in range(20):
        other.param_groups[0]["lr"] = learning_rate = 0.01 / (step + 1)
        x = torch.randn(16, 7)
        for head in (mine, theirs):
            head(x).square().mean().backward()
        one.step(learning_rate)
        other.step()
        other.zero_grad()
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True)), step
    assert all(p.grad is None for p in mine.parameters())


def test_a_parameter_without_a_gradient_stays_as_it_is():
    unused, used = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
    optimiser = AdamW([unused, used], weight_decay=0.5)
    used.sum().backward()
    optimiser.step(0.1)
    assert torch.equal(unused, torch.ones(3))
    assert torch.allclose(used, torch.full((2,), 1 - 0.1 * 0.5 - 0.1))  # decay, and a first step of the rate itself


def test_a_training_loads_no_compiler():
    training = """
import numpy as np
from fitrec_cache.training.fit import Side, fit
from fitrec_cache.settings.recipes import get_recipe
values, targets = np.zeros((6, 2, 4), np.float32), np.arange(6) % 2
sides = [Side(values=values, targets=targets, clips=np.arange(i, i + 3)) for i in (0, 3)]
recipe = get_recipe("paper").change(epochs=1)
config = recipe.head_config("vit-lstm", values.shape, n_classes=2, n_train=3, attention=None)
fit(*sides, config=config, recipe=recipe, seed=0)
"""
    assert loaded(training, "torch._dynamo", "torch.optim") == {"torch.optim"}
