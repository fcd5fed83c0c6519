"""Which runs belong to one model (they differ only in seed and fold), and how models of the same name differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fitrec_cache.common.files import canonical_json
from fitrec_cache.dataset.rules import short_rule, sides_digest
from fitrec_cache.settings.recipes import RECIPES, Recipe
from fitrec_cache.settings.variants import VARIANTS

#: Key in ``run.json``: a digest of each clip's value in the column by which the split made folds; older runs lack it.
COLUMN = "column_sha256"

#: A model is distinguished only from others that agree in these settings, which are shown in or beside its name.
_PLACE = ("variant", "backbone", "split")

#: Settings whose values a reader cannot make sense of, so they are shown as numbers: ``features`` differ with the
#: weights, ``data`` with the clips, ``sides`` with lists or columns of the same name.
_NUMBERED = ("features", "data", "sides")


def model_settings(run: Mapping[str, Any]) -> dict[str, str]:
    """Return all settings in a ``run.json`` that define a model, that is all but seed and fold; flat and as text."""
    sources = run["sources"]
    chosen = {
        "recipe": run["recipe"],
        "preset": "+".join(
            "none" if source["kind"] == "pixels" else str(source["identity"]["preprocessing"]["preset"])
            for source in sources
        ),
        "variant": run["head"]["variant"],
        "backbone": run["backbone"],
        "split": short_rule(str(run["split"]["rule"])),
        "split seed": run["split"].get("seed", "each its own"),
        "attention": run["head"]["attention"],
        "frames": run["head"]["frames"],
        "features in": "+".join(str(s["identity"].get("precision", "")) for s in sources),
        "classes": len(run["labels"]),
        "unknown classes:": ", ".join(run["split"]["unknown_classes"]) or "none",
        "features": " ".join(canonical_json(source["identity"]) for source in sources),
        "data": run["data_sha256"],
        "sides": sides_digest(run["split"]) or run.get(COLUMN, ""),
        "false alarm rate": run.get("false_alarm_rate", ""),
    }
    training = {k: v for k, v in run["training"].items() if k not in ("device", *chosen)}
    return {k: str(v) for k, v in {**chosen, **training}.items()}


def differences(models: Sequence[Mapping[str, str]]) -> list[str]:
    """Return, for each model, what distinguishes it from others of its variant, backbone and split, in words.

    Args:
        models: The settings of each model, as :func:`model_settings` returns them, in any order.

    Returns:
        Settings with their values; empty if the name is enough. Settings that merely follow from the recipe are left
        out if the rest distinguishes the models. Long values are numbered; equal values have the same number in all
        models of a split.
    """
    told = [_by_settings(mine, [s for s in models if _place(s) == _place(mine)]) for mine in models]
    for key in _NUMBERED:
        told = _numbered(models, told, key)
    return told


def _by_settings(mine: Mapping[str, str], alike: Sequence[Mapping[str, str]]) -> str:
    """Return in which settings a model differs from those of the same variant, backbone and split (itself included)."""
    readable = [k for k in dict.fromkeys(k for s in alike for k in s) if k not in (*_PLACE, *_NUMBERED)]
    differing = [k for k in readable if len({s.get(k) for s in alike}) > 1]
    telling = [k for k in differing if not all(_is_usual(k, s) for s in alike)]
    shown = telling if _count(alike, telling) == _count(alike, differing) else differing
    return _joined(f"{k.replace('_', ' ')} {mine.get(k, 'not set')}" for k in shown)


def _count(models: Sequence[Mapping[str, str]], names: Sequence[str]) -> int:
    """Return how many models these settings distinguish."""
    return len({tuple(s.get(name) for name in names) for s in models})


def _numbered(models: Sequence[Mapping[str, str]], told: Sequence[str], key: str) -> list[str]:
    """Return each model's text; the number of its value is added where models of that name have different values."""
    names = [(*_place(s), text) for s, text in zip(models, told, strict=True)]
    found = []
    for mine, name, text in zip(models, names, told, strict=True):
        of_split = [s for s in models if s["split"] == mine["split"]]
        rivals = of_split if key == "sides" else [s for s, n in zip(models, names, strict=True) if n == name]
        values = sorted({s.get(key, "") for s in of_split}, key=lambda value: (not value, value))
        number = f"{key} no. {values.index(mine.get(key, '')) + 1}"
        found.append(_joined([text, number]) if len({s.get(key) for s in rivals}) > 1 else text)
    return found


def incomplete(runs: Sequence[tuple[int, str]]) -> list[int]:
    """Return the seeds of a model that lack folds which another seed has; runs are given as (seed, fold)."""
    folds: dict[int, set[str]] = {}
    for seed, fold in runs:
        folds.setdefault(seed, set()).add(fold)
    most = max(folds.values(), key=len)
    return sorted(seed for seed, there in folds.items() if there != most)


def _is_usual(name: str, settings: Mapping[str, str]) -> bool:
    """Say whether a setting has the value that the model's recipe and variant imply, or depends on the machine only."""
    usual = RECIPES.get(settings["recipe"], Recipe()).to_dict()
    if variant := VARIANTS.get(settings["variant"]):
        usual["attention"] = variant.attention
    return name == "precision" or (name in usual and settings.get(name) == str(usual[name]))


def _place(settings: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(settings[k] for k in _PLACE)


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(text for text in texts if text)
