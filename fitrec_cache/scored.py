"""Run folders as what a comparison needs: which test clips each run has right, and which runs are one model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fitrec_cache.errors import StoreCorrupt, UsageError
from fitrec_cache.files import canonical_json, run_folders
from fitrec_cache.paired import units_of
from fitrec_cache.splits import short_rule, sides_digest

_MOST_JSON_BYTES = 200_000_000

#: Settings whose values say nothing to a reader: other weights give other features, other clips other data, other
#: lists of the same name other sides.
_NUMBERED = ("features", "data", "sides")


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRun:
    """The test side of one run.

    Attributes:
        folder: Where it is.
        settings: What decides the model, as flat names and values; the same for all its seeds and folds.
        seed: Its seed.
        fold: Name of its fold, or empty.
        clips: Ids of its N test clips.
        groups: Their groups, None where unknown.
        labels: Their true classes.
        right: Whether each is recognised, bool ``(N,)``; of equal logits the first class counts.
    """

    folder: Path
    settings: Mapping[str, str]
    seed: int
    fold: str
    clips: list[str]
    groups: list[str | None]
    labels: list[str]
    right: NDArray[np.bool_]

    @property
    def units(self) -> list[str]:
        """What each test clip is drawn with; see :func:`fitrec_cache.paired.units_of`."""
        return units_of(self.clips, self.groups, rule=self.settings["split"], fold=self.fold)


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """Runs that differ only in seed or fold; ``split`` is the rule, ``sides`` tells lists of the same name apart."""

    name: str
    split: str
    sides: str
    runs: list[ScoredRun]

    def seeds(self) -> list[int]:
        """Return its seeds, ascending."""
        return sorted({r.seed for r in self.runs})


def find_models(folders: Sequence[Path]) -> tuple[list[Model], list[str]]:
    """Read runs and sort them by model.

    Args:
        folders: Run folders, or folders that hold some at any depth.

    Returns:
        The models in the order found, and remarks.

    Raises:
        UsageError: If a folder holds no run, two runs are the same model, seed and fold, or a clip has two classes.
        StoreCorrupt: If a run's files are damaged.
    """
    runs = [read_scored(folder) for folder in _run_folders(folders)]
    _check_classes(runs)
    by_model: dict[str, list[ScoredRun]] = {}
    for run in runs:
        by_model.setdefault(canonical_json(dict(run.settings)), []).append(run)
    names = _names([group[0].settings for group in by_model.values()])
    models, notes = [], []
    for name, group in zip(names, by_model.values(), strict=True):
        whole, remarks = _whole(name, group)
        models.append(Model(name=name, split=group[0].settings["split"], sides=group[0].settings["sides"], runs=whole))
        notes += remarks
    return models, notes


def read_scored(folder: Path) -> ScoredRun:
    """Read which test clips a run has right.

    Raises:
        StoreCorrupt: If its files are damaged, missing or do not fit each other.
    """
    run = _read_json(folder / "run.json")
    try:
        sides, labels = run["split"], [str(label) for label in run["labels"]]
        clips = [str(c) for c in sides["test"]]
        groups = sides.get("test_groups") or [None] * len(clips)
        with safetensors.safe_open(folder / "logits.safetensors", framework="numpy") as file:
            logits, truth = file.get_tensor("test_logits"), file.get_tensor("test_targets")
        if logits.shape != (len(clips), len(labels)) or truth.shape != (len(clips),) or len(groups) != len(clips):
            raise StoreCorrupt(
                f"{folder}: logits of shape {logits.shape}, {truth.shape} targets and {len(groups)} groups for "
                f"{len(clips)} test clips of {len(labels)} classes. Train the head again"
            )
        return ScoredRun(
            folder=folder,
            settings=_settings(run),
            seed=int(run["seed"]),
            fold=str(run.get("fold", "")),
            clips=clips,
            groups=[None if g is None else str(g) for g in groups],
            labels=[labels[k] for k in truth],
            right=logits.argmax(axis=1) == truth,
        )
    except (KeyError, IndexError, TypeError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise StoreCorrupt(
            f"{folder} cannot be compared: {type(error).__name__} {error}. Expected run.json and logits.safetensors "
            "as train-head writes them; train the head again"
        ) from error


def _run_folders(folders: Sequence[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for folder in folders:
        below = run_folders(folder)
        if not below:
            raise UsageError(f"no run in {folder}: expected a folder made by `fitrec-cache train-head --out {folder}`")
        for each in below:
            found.setdefault(each.resolve(), each)
    if not found:
        raise UsageError("no run named: give one or more run folders")
    return list(found.values())


def _settings(run: Mapping[str, Any]) -> dict[str, str]:
    """Return, flat and as text, everything that decides a model but seed and fold."""
    head = run["head"]
    made_of = [canonical_json(source.get("identity", {})) for source in run.get("sources", [])]
    chosen = {
        "variant": head["variant"],
        "backbone": run["backbone"],
        "split": short_rule(str(run["split"]["rule"])),
        "sides": sides_digest(run["split"]),
        "attention": head.get("attention"),
        "recipe": run.get("recipe", "paper"),
        "preset": "+".join(_preset(source) for source in run.get("sources", [])),
        "features": " ".join(made_of),
        "unknown classes": ", ".join(unknown_classes(run["split"])),
        "data": run.get("data_sha256", ""),
    }
    training = {k: v for k, v in run["training"].items() if k != "device"}
    return {k: str(v) for k, v in {**training, **chosen}.items()}


def unknown_classes(split: Mapping[str, Any]) -> list[str]:
    """Return the classes that a run kept from all sides; of older run folders, by the folders of their clips."""
    if classes := split.get("unknown_classes"):
        return [str(name) for name in classes]
    return sorted({str(clip).split("/")[0] for clip in split.get("unknown") or []})


def _preset(source: Mapping[str, Any]) -> str:
    return str(source.get("identity", {}).get("preprocessing", {}).get("preset", ""))


def _names(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a name for each model: variant, backbone, and the other settings in which the models differ.

    The split rule is not in it: only models with the same one are compared.
    """
    apart = ("variant", "backbone", "split", *_NUMBERED, "unknown classes")
    keys = list(dict.fromkeys(k for s in settings for k in s if k not in apart))
    plain = [f"{s['variant']} on {s['backbone']}" for s in settings]
    names = []
    for name, mine in zip(plain, settings, strict=True):
        others = [s for n, s in zip(plain, settings, strict=True) if n == name and s["split"] == mine["split"]]
        differing = [k for k in keys if len({s.get(k) for s in others}) > 1]
        names.append(", ".join([name, *(f"{k} {mine.get(k, 'not set')}" for k in differing)]))
    for key in ("unknown classes", *_NUMBERED):
        names = _told_apart(names, settings, key)
    return names


def _told_apart(names: Sequence[str], settings: Sequence[Mapping[str, str]], key: str) -> list[str]:
    """Return names in which models of one name and split that differ in a setting with a long value say so."""
    places = [(name, s["split"]) for name, s in zip(names, settings, strict=True)]
    told = []
    for name, place, mine in zip(names, places, settings, strict=True):
        values = list(dict.fromkeys(s[key] for p, s in zip(places, settings, strict=True) if p == place))
        if len(values) == 1:
            told.append(name)
        elif key in _NUMBERED:
            told.append(f"{name}, {key} no. {values.index(mine[key]) + 1}")
        else:
            told.append(f"{name}, {key}: {mine[key] or 'none'}")
    return told


def _whole(name: str, runs: Sequence[ScoredRun]) -> tuple[list[ScoredRun], list[str]]:
    """Return the runs of the seeds that have the most folds, the same ones, and notes of what is missing."""
    if twice := [key for key, n in Counter((r.seed, r.fold) for r in runs).items() if n > 1]:
        same = [str(r.folder) for r in runs if (r.seed, r.fold) == twice[0]]
        raise UsageError(
            f"{same[0]} and {same[1]} are runs of the same model, seed and fold ({name}, seed {twice[0][0]}): "
            "name one of them"
        )
    folds = {r.fold for r in runs}
    have: dict[int, set[str]] = {}
    for run in runs:
        have.setdefault(run.seed, set()).add(run.fold)
    most = max(have.values(), key=len)
    notes = []
    if left_out := sorted(s for s, there in have.items() if there != most):
        notes.append(f"{name}: seed {', '.join(map(str, left_out))} lacks some of the {len(folds)} folds: left out")
    kind, _, number = runs[0].settings["split"].partition(":")
    if kind == "kfold" and number.isdigit() and len(most) < int(number):
        notes.append(f"{name}: only {len(most)} of {number} folds are there, so not every clip was tested")
    return [r for r in runs if r.seed not in left_out], notes


def _check_classes(runs: Sequence[ScoredRun]) -> None:
    known: dict[str, tuple[str, Path]] = {}
    for run in runs:
        for clip, label in zip(run.clips, run.labels, strict=True):
            before, where = known.setdefault(clip, (label, run.folder))
            if before != label:
                raise UsageError(
                    f"clip {clip} is of class {before} in {where} and of class {label} in {run.folder}: runs on data "
                    "with other labels cannot be compared"
                )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise StoreCorrupt(f"{path} is too large to be what it should be")
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreCorrupt(f"{path} cannot be read: {error}. Train the head again") from error
    if not isinstance(found, dict):
        raise StoreCorrupt(f"{path} is damaged: expected a JSON object")
    return found
