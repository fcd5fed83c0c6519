"""Which runs are one model: those that differ only in seed and fold; and what tells models of one name apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fitrec_cache.files import canonical_json
from fitrec_cache.recipes import RECIPES, Recipe
from fitrec_cache.splits import short_rule, sides_digest
from fitrec_cache.variants import VARIANTS

#: What models are compared within; it is said beside their names.
_PLACE = ("variant", "backbone", "split")

#: Settings whose values say nothing to a reader: other weights give other features, other clips other data, other
#: lists of the same name other sides.
_NUMBERED = ("features", "data", "sides")


def model_settings(run: Mapping[str, Any]) -> dict[str, str]:
    """Return, flat and as text, everything in a ``run.json`` that decides a model but seed and fold."""
    sources = run.get("sources") or []
    chosen = {
        "recipe": run.get("recipe", "paper"),
        "preset": "+".join(_preset(source) for source in sources),
        "variant": run["head"]["variant"],
        "backbone": run["backbone"],
        "split": short_rule(str(run["split"]["rule"])),
        "attention": run["head"].get("attention"),
        "unknown classes:": ", ".join(unknown_classes(run["split"])) or "none",
        "features": " ".join(canonical_json(source.get("identity", {})) for source in sources),
        "data": run.get("data_sha256", ""),
        "sides": sides_digest(run["split"]),
    }
    training = {k: v for k, v in run["training"].items() if k not in ("device", *chosen)}
    return {k: str(v) for k, v in {**chosen, **training}.items()}


def unknown_classes(split: Mapping[str, Any]) -> list[str]:
    """Return the classes that a run kept from all sides; of older run folders, by the folders of their clips."""
    if classes := split.get("unknown_classes"):
        return [str(name) for name in classes]
    return sorted({str(clip).split("/")[0] for clip in split.get("unknown") or []})


def _preset(source: Mapping[str, Any]) -> str:
    return str(source.get("identity", {}).get("preprocessing", {}).get("preset", "none"))


def differences(models: Sequence[Mapping[str, str]]) -> list[str]:
    """Return for each model what tells it from the others of its variant, backbone and split, in words.

    Args:
        models: The settings of each, as :func:`model_settings` gives them, in any order.

    Returns:
        Settings with their values, empty where the name tells enough. Recipe or preset alone where it does, but for
        settings that are not the recipe's own; else every setting that differs. What has long values is numbered, one
        number for one value among all models of a split.
    """
    told = [""] * len(models)
    for i, mine in enumerate(models):
        others = [s for s in models if _place(s) == _place(mine)]
        differing = [k for k in _readable(models) if len({s.get(k) for s in others}) > 1]
        alone = [k for k in ("recipe", "preset") if len({s.get(k) for s in others}) == len(others) > 1][:1]
        own = [k for k in differing if k not in ("recipe", "preset") and any(not _usual(k, s) for s in others)]
        told[i] = _joined(
            f"{k.replace('_', ' ')} {mine.get(k, 'not set')}" for k in (alone and alone + own) or differing
        )
    for key in _NUMBERED:
        before = list(told)
        for i, mine in enumerate(models):
            alike = [
                s for s, text in zip(models, before, strict=True) if (_place(s), text) == (_place(mine), before[i])
            ]
            whole = [s for s in models if s["split"] == mine["split"]]
            if len({s.get(key) for s in (whole if key == "sides" else alike)}) > 1:
                values = sorted({s.get(key, "") for s in whole}, key=lambda value: (not value, value))
                told[i] = _joined([told[i], f"{key} no. {values.index(mine.get(key, '')) + 1}"])
    return told


def incomplete(runs: Sequence[tuple[int, str]]) -> list[int]:
    """Return the seeds of a model that lack folds which another seed has; runs are given as seed and fold."""
    folds: dict[int, set[str]] = {}
    for seed, fold in runs:
        folds.setdefault(seed, set()).add(fold)
    most = max(folds.values(), key=len)
    return sorted(seed for seed, there in folds.items() if there != most)


def _usual(name: str, settings: Mapping[str, str]) -> bool:
    """Say whether a setting is what the model's recipe and variant bring along, or follows from the machine."""
    recipe = RECIPES.get(settings["recipe"], Recipe()).to_dict()
    usual = (
        {**recipe, "attention": VARIANTS[settings["variant"]].attention} if settings["variant"] in VARIANTS else recipe
    )
    return name == "precision" or (name in usual and settings.get(name) == str(usual[name]))


def _place(settings: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(settings[k] for k in _PLACE)


def _readable(models: Sequence[Mapping[str, str]]) -> list[str]:
    return [k for k in dict.fromkeys(k for s in models for k in s) if k not in (*_PLACE, *_NUMBERED)]


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(text for text in texts if text)
