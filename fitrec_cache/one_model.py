"""Which runs are one model: those that differ only in seed and fold; and what tells models of one name apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fitrec_cache.files import canonical_json
from fitrec_cache.splits import short_rule, sides_digest

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
        models: The settings of each, as :func:`model_settings` gives them.

    Returns:
        Settings with their values, empty where the name tells enough. Recipe or preset alone, if it does; else every
        setting that differs; what has long values is numbered.
    """
    told = [""] * len(models)
    for i, mine in enumerate(models):
        others = [s for s in models if _place(s) == _place(mine)]
        differing = [k for k in _readable(models) if len({s.get(k) for s in others}) > 1]
        alone = [k for k in ("recipe", "preset") if len({s.get(k) for s in others}) == len(others) > 1]
        told[i] = _joined(f"{k.replace('_', ' ')} {mine.get(k, 'not set')}" for k in alone[:1] or differing)
    for key in _NUMBERED:
        places = [(*_place(s), text) for s, text in zip(models, told, strict=True)]
        for i, (place, mine) in enumerate(zip(places, models, strict=True)):
            values = list(dict.fromkeys(s.get(key) for p, s in zip(places, models, strict=True) if p == place))
            if len(values) > 1:
                told[i] = _joined([told[i], f"{key} no. {values.index(mine.get(key)) + 1}"])
    return told


def _place(settings: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(settings[k] for k in _PLACE)


def _readable(models: Sequence[Mapping[str, str]]) -> list[str]:
    return [k for k in dict.fromkeys(k for s in models for k in s) if k not in (*_PLACE, *_NUMBERED)]


def _joined(texts: Any) -> str:
    return ", ".join(text for text in texts if text)
