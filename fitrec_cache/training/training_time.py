"""Estimate the training time from a few steps of each head on random features."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fitrec_cache.common.threads import threads_beside_others, threads_set_to
from fitrec_cache.dataset.splits import SHARE
from fitrec_cache.settings.recipes import Recipe
from fitrec_cache.training.fit import step_seconds


def training_seconds(
    heads: Sequence[tuple[str, int, int]],
    *,
    sides: tuple[int, int, int],
    n_classes: int,
    frames: int,
    seeds: int,
    recipe: Recipe,
) -> float:
    """Estimate the seconds to train several heads in sequence, and the slowest one again on all clips.

    Work outside the steps, such as validation, is not included, so the estimate is rather low.

    Args:
        heads: Variant and feature length of each head, and how many of the features are poses.
        sides: Number of clips for training, validation and testing.
        n_classes: Number of classes.
        frames: Frames per clip.
        seeds: How often each head is trained.
        recipe: The training settings.
    """
    n_train, n_val, _ = sides
    fitted, n_all = recipe.fitted_to(n_train), sum(sides)
    both = fitted.epochs * _batches(n_train + n_val, fitted) if recipe.refit else 0
    tested, last = fitted.epochs * _batches(n_train, fitted) + both, fitted.epochs * _batches(n_all, fitted)
    a_step = []
    with threads_set_to(threads_beside_others().number):
        for variant, dim, pose_dim in heads:
            config = fitted.head_config(
                variant,
                (n_all, frames, dim),
                n_classes=n_classes,
                n_train=n_train,
                attention=None,
                pose_dim=pose_dim,
            )
            a_step.append(step_seconds(config, fitted, n_train))
    return seeds * (tested * sum(a_step) + last * max(a_step))


def usual_sides(n: int) -> tuple[int, int, int]:
    """Return the approximate number of n clips that are used for training, validation and testing.

    Example:
        >>> usual_sides(1000)
        (640, 160, 200)
    """
    test = round(SHARE * n)
    val = round(SHARE * (n - test))
    return n - test - val, val, test


def _batches(n: int, recipe: Recipe) -> int:
    return math.ceil(n / recipe.batch_size)
