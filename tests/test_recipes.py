from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from fitrec_cache.recipes import RECIPES, Recipe


def written(value):
    """Return a setting as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")


def test_the_page_of_settings_has_every_one_with_what_the_recipes_make_of_it():
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    rows = [
        [cell.strip() for cell in line.split("|")[1:4]]
        for line in page.read_text().splitlines()
        if line.startswith("| `")
    ]
    recipes = [RECIPES["native"], RECIPES["paper"]]
    fields = [field.name for field in dataclasses.fields(Recipe)]
    assert rows == [[f"`{name}`", *(written(getattr(r, name)) for r in recipes)] for name in fields]
