"""About how long training takes, from a few steps of each head on made-up features."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fitrec_cache.settings.recipes import Recipe
from fitrec_cache.training.fit import step_seconds


def training_seconds(
    heads: Sequence[tuple[str, int]],
    *,
    sides: tuple[int, int, int],
    n_classes: int,
    frames: int,
    seeds: int,
    recipe: Recipe,
) -> float:
    """Return about how many seconds it takes to train some heads, one after the other, and the slowest again on all.

    Without what is done beside steps, such as looking at validation clips: rather too little.

    Args:
        heads: Variant and length of its features, of each head.
        sides: Clips for training, validation and testing.
        n_classes: Number of classes.
        frames: Frames a clip.
        seeds: How often each head is trained.
        recipe: The training.
    """
    n_train, n_val, _ = sides
    fitted, n_all = recipe.fitted_to(n_train), sum(sides)
    both = fitted.epochs * _batches(n_train + n_val, fitted) if recipe.refit else 0
    tested, last = fitted.epochs * _batches(n_train, fitted) + both, fitted.epochs * _batches(n_all, fitted)
    a_step = []
    for variant, dim in heads:
        shape = (n_all, frames, dim)
        config = fitted.head_config(variant, shape, n_classes=n_classes, n_train=n_train, attention=None)
        a_step.append(step_seconds(config, fitted, n_train))
    return seeds * (tested * sum(a_step) + last * max(a_step))


def usual_sides(n: int) -> tuple[int, int, int]:
    """Return how many of n clips are for training, validation and testing, about.

    Example:
        >>> usual_sides(1000)
        (640, 160, 200)
    """
    return n - n // 5 - (n - n // 5) // 5, (n - n // 5) // 5, n // 5


def _batches(n: int, recipe: Recipe) -> int:
    return math.ceil(n / recipe.batch_size)
