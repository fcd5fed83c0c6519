"""What is needed to repeat the runs: commands, versions and identities."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fitrec_cache.cache import features_folder
from fitrec_cache.common.files import digest
from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.evaluation.calibration import FALSE_ALARM_RATE
from fitrec_cache.report.models import Model
from fitrec_cache.report.records import Record
from fitrec_cache.settings.recipes import RECIPES, Recipe


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
        identity, pixels = source["identity"], source["kind"] == "pixels"
        frames = identity if pixels else identity["frames"]
        words = ["fitrec-cache", "extract", "VIDEOS", "--cache", "CACHE"]
        if not pixels:
            weights = source.get("origin", {}).get("weights")
            words += ["--backbone", identity["backbone"] + (f"={weights}" if weights else "")]
            words += ["--preset", identity["preprocessing"]["preset"], "--precision", identity["precision"]]
            words += ["--compile"] * ("compiled" in identity)
        words += ["--samples", str(frames["samples"]), "--frame-size", str(frames["short_side"])]
        lines.append(shlex.join(words))
    return lines


def _train(model: Model, number: int) -> str:
    record = model.first
    words = ["fitrec-cache", "train-head", *(["--cache", "CACHE"] if record.sources else ["--features", "FILE"])]
    words += ["--variant", record.variant]
    features = [s["identity"] for s in record.sources if s["kind"] != "pixels"]
    presets = {identity["preprocessing"]["preset"] for identity in features}
    if len(presets) > 1 or len({identity["backbone"] for identity in features}) < len(features):
        names, presets = [features_folder(identity) for identity in features], set()  # names would be ambiguous
    else:
        names = [identity["backbone"] for identity in features]
    for name in names:
        words += ["--backbone", name]
    for preset in presets:
        words += ["--preset", preset]
    if some := record.run_json.get("some_classes"):
        names = [str(name) for name in some]
        listed = ",".join(names)  # a name with a comma can only be given in a file
        words += ["--classes", "FILE-OF-THESE-CLASSES" if any("," in name for name in names) else listed]
    words += ["--split", record.rule]
    for seed in model.by_seed:
        words += ["--seed", str(seed)]
    if "seed" in record.run_json["split"]:
        words += ["--split-seed", str(record.run_json["split"]["seed"])]
    words += ["--recipe", str(record.run_json["recipe"]), *_changes(record)]
    if attention := record.run_json["head"].get("attention"):
        words += ["--attention", str(attention)]
    for label in record.run_json["split"]["unknown_classes"]:
        words += ["--unknown", label]
    words += ["--final"] * bool(record.run_json.get("final"))
    return shlex.join([*words, "--out", f"RUNS/{number}-{record.variant}"])


#: Setting -> another setting, which becomes 0 if the first is given and the other is not.
_GO_WITH = {"epochs": "steps", "components": "clips_per_component"}


def _changes(record: Record) -> list[str]:
    """Return the options for settings that differ from the recipe."""
    usual = RECIPES.get(str(record.run_json["recipe"]), Recipe()).to_dict()
    options: list[str] = []
    training = record.run_json["training"]
    changed = {name for name, value in training.items() if name in usual and value != usual[name]}
    changed |= {other for name, other in _GO_WITH.items() if name in changed and training.get(other)}
    for name, value in training.items():
        if name in changed:
            options += ["--set", f"{name}={value}"]
    device = str(training["device"])
    options += ["--device", device] * (device != "cpu")
    rate = record.run_json["false_alarm_rate"]
    return options if rate == FALSE_ALARM_RATE else [*options, "--false-alarm-rate", str(rate)]
