from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fitrec_cache.errors import UsageError
from fitrec_cache.settings.recipes import RECIPES, Recipe, get_recipe
from fitrec_cache.settings.variants import VARIANTS
from fitrec_cache.training.fit import Side, apply_head, fit


def written(value):
    """Return a setting as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")


def rows_of_the_page(heading):
    """Return the cells of a section's table in docs/settings.md, without its head."""
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    section = page.read_text().split(f"{heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_of_settings_has_every_variant_as_it_is():
    rows = [
        [
            f"`{v.name}`",
            "frames of 64x64 pixels" if v.takes_pixels else f"features of `{v.backbone}`",
            str(v.lstm_units or "-"),
            v.attention,
            str(v.dense_units or "-"),
        ]
        for v in VARIANTS.values()
    ]
    assert rows_of_the_page("## Variants") == rows


def test_the_first_page_names_every_variant():
    row = next(
        line
        for line in (Path(__file__).parents[1] / "README.md").read_text().splitlines()
        if line.startswith("| `train-head` |")
    )
    listed = row.split("Variants: ")[1].split(" (")[0]
    assert listed == ", ".join(f"`{name}`" for name in VARIANTS)


def test_the_page_of_settings_has_every_one_with_what_the_recipes_make_of_it():
    rows = [row[:3] for row in rows_of_the_page("# Settings of a training")]
    recipes = [RECIPES["native"], RECIPES["paper"]]
    fields = [field.name for field in dataclasses.fields(Recipe)]
    assert rows == [[f"`{name}`", *(written(getattr(r, name)) for r in recipes)] for name in fields]


@pytest.mark.parametrize(
    ("n_train", "dim", "components"), [(64, 1280, 42), (768, 1280, 512), (767, 1280, 511), (900, 192, 192), (1, 9, 1)]
)
def test_few_clips_have_fewer_components(n_train, dim, components):
    shape = (n_train, 20, dim)
    config = get_recipe("native").head_config("mean", shape, n_classes=2, n_train=n_train, attention=None)
    assert config.components == components


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_clips_of_a_component_are_a_number(value):
    with pytest.raises(UsageError, match=r"clips_per_component is .*expected a number of training clips"):
        get_recipe("native").change(clips_per_component=value)


def test_hardly_any_clips_of_a_component_are_as_if_none_were_asked_for():
    recipe = get_recipe("native").change(clips_per_component=1e-320)
    config = recipe.head_config("mean", (4, 20, 100), n_classes=2, n_train=4, attention=None)
    assert config.components == 80


def test_components_given_by_hand_are_as_many_as_that():
    recipe = get_recipe("native").change(components=64)
    config = recipe.head_config("mean", (4, 20, 100), n_classes=2, n_train=4, attention=None)
    assert (recipe.clips_per_component, config.components) == (0, 64)
    assert get_recipe("native").change(components=64, clips_per_component=2).clips_per_component == 2


def test_a_head_of_few_clips_learns_classes_and_not_clips():
    """8 clips of each of 8 classes; as many components as there are frames would leave some 6 of 10 right."""
    rng = np.random.default_rng(0)
    classes, clips, frames, dim = 8, 20, 8, 400
    targets = np.repeat(np.arange(classes), clips)
    spread = np.arange(1, dim + 1) ** -0.5
    centres = 0.7 * rng.normal(size=(classes, dim)) * spread
    of_clips = centres[targets] + rng.normal(size=(len(targets), dim)) * spread
    values = of_clips[:, None] + 0.2 * rng.normal(size=(len(targets), frames, dim)) * spread
    values = (values @ np.linalg.qr(rng.normal(size=(dim, dim)))[0]).astype(np.float32)
    train, test = (np.flatnonzero((np.arange(len(targets)) % clips < 8) == side) for side in (True, False))
    recipe = get_recipe("native").change(refit=False)
    config = recipe.head_config("mean", values.shape, n_classes=classes, n_train=len(train), attention=None)
    side = Side(values=values, targets=targets, clips=train)
    head = fit(side, replace(side, clips=test), config=config, recipe=recipe, seed=0).head
    logits, _ = apply_head(head, values, test, [f"{i}" for i in test])
    assert (logits.argmax(dim=1).numpy() == targets[test]).mean() > 0.95
