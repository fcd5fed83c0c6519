"""What is needed to repeat the runs: commands, versions and identities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fitrec_cache.cache import features_folder
from fitrec_cache.common.files import digest
from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.evaluation.calibration import FALSE_ALARM_RATE
from fitrec_cache.report.models import Model
from fitrec_cache.report.records import Record
from fitrec_cache.settings.recipes import GOES_WITH, RECIPES, Recipe
from fitrec_cache.storage.sources import frames_of
from fitrec_cache.wording import command, options


@dataclass(frozen=True, kw_only=True)
class HowTo:
    """How to repeat one model.

    Attributes:
        commands: Shell lines; CACHE, VIDEOS and RUNS stand for folders.
        settings: Name and value of every setting, in order.
        versions: Versions of the program and the libraries.
        sources: For each feature set, its name, where its weights came from, and its identity as JSON.
        test_sha256: The sha256 of the test clips' names in the first seed and fold, sorted, one per line.
    """

    title: str
    commands: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    sources: tuple[tuple[str, str, str], ...]
    test_sha256: str


def how_to(model: Model, number: int) -> HowTo:
    """Return how to repeat a model's runs; ``number`` of the model names the output folder."""
    record = model.first
    threads = ", ".join(sorted({str(each.run_json["threads"]) for each in model.runs}))
    names = "".join(f"{clip}\n" for clip in sorted(record.clips))
    settings = {
        "split": record.rule,
        "seeds": ", ".join(map(str, model.by_seed)),
        **({"split seed": record.run_json["split"]["seed"]} if "seed" in record.run_json["split"] else {}),
        "recipe": str(record.run_json["recipe"]),
        **({"folds": ", ".join(model.folds)} if len(model.folds) > 1 else {}),
        "clips (training, validation, test)": ", ".join(str(len(record.run_json["split"][side])) for side in SIDES),
        **({"final head": "of all clips, for predict and watch"} if record.run_json.get("final") else {}),
        **record.run_json["training"],
        **{
            k: v for k, v in record.run_json["head"].items() if k != "variant"
        },  # override the recipe's values of that name
    }
    return HowTo(
        title=model.name,
        commands=(*_extract(record.sources), _train(model, number)),
        settings=tuple((k.replace("_", " "), _text(v)) for k, v in settings.items()),
        versions=(*((k, str(v)) for k, v in record.run_json["versions"].items()), ("threads", threads)),
        sources=tuple(_source(s) for s in record.sources),
        test_sha256=hashlib.sha256(names.encode()).hexdigest(),
    )


def _source(source: Mapping[str, Any]) -> tuple[str, str, str]:
    identity, origin = source["identity"], source.get("origin", {})
    name = f"{identity.get('backbone', 'frames')}, identity {digest(identity)[:16]}"
    where = ", ".join(f"{k} {v}" for k, v in origin.items()) or "nothing recorded"
    return name, where, json.dumps(identity, indent=1, sort_keys=True)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _extract(sources: list[Mapping[str, Any]]) -> list[str]:
    """Return one extract command for each feature set."""
    lines = []
    for source in sources:
        identity, frames = source["identity"], frames_of(source)
        given: dict[str, Any] = {"cache": "CACHE"}
        if source["kind"] != "pixels":
            weights = source.get("origin", {}).get("weights")
            given |= {
                "backbone": identity["backbone"] + (f"={weights}" if weights else ""),
                "preset": identity["preprocessing"]["preset"],
                "precision": identity["precision"],
                "compile": "compiled" in identity,
            }
        lines.append(command("extract", "VIDEOS", **given, samples=frames["samples"], frame_size=frames["short_side"]))
    return lines


def _train(model: Model, number: int) -> str:
    record = model.first
    run_json, split = record.run_json, record.run_json["split"]
    features = [s["identity"] for s in record.sources if s["kind"] != "pixels"]
    presets = {identity["preprocessing"]["preset"] for identity in features}
    if len(presets) > 1 or len({identity["backbone"] for identity in features}) < len(features):
        names, presets = [features_folder(identity) for identity in features], set()  # names would be ambiguous
    else:
        names = [identity["backbone"] for identity in features]
    classes = [str(name) for name in run_json.get("some_classes", ())]
    # A name with a comma can only be given in a file.
    listed = "FILE-OF-THESE-CLASSES" if any("," in name for name in classes) else ",".join(classes)
    words = options(
        **({"cache": "CACHE"} if record.sources else {"features": "FILE"}),
        variant=record.variant,
        backbone=names,
        preset=list(presets),
        classes=listed or None,
        split=record.rule,
        seed=list(model.by_seed),
        split_seed=split.get("seed"),
        recipe=run_json["recipe"],
    )
    more = options(
        attention=run_json["head"].get("attention") or None,
        unknown=split["unknown_classes"],
        final=bool(run_json.get("final")),
        out=f"RUNS/{number}-{record.variant}",
    )
    return command("train-head", *words, *_changes(record), *more)


def _changes(record: Record) -> list[str]:
    """Return the options for settings that differ from the recipe."""
    usual = RECIPES.get(str(record.run_json["recipe"]), Recipe()).to_dict()
    training = record.run_json["training"]
    changed = {name for name, value in training.items() if name in usual and value != usual[name]}
    changed |= {other for name, other in GOES_WITH.items() if name in changed and training.get(other)}
    device, rate = str(training["device"]), record.run_json["false_alarm_rate"]
    return options(
        set=[f"{name}={value}" for name, value in training.items() if name in changed],
        device=None if device == "cpu" else device,
        false_alarm_rate=None if rate == FALSE_ALARM_RATE else rate,
    )
