"""Run folders: one trained head with everything needed to judge it, repeat it and use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import (
    TEMPORARY,
    canonical_json,
    is_clutter,
    opened_file,
    parse_json,
    put_in_place,
    staged,
    sum_of,
    write_atomic,
    write_json,
)
from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.errors import StoreCorrupt, StoreError, UsageError
from fitrec_cache.evaluation.calibration import Calibration
from fitrec_cache.heads.head import build_head
from fitrec_cache.runs.learned import chosen_by_learn
from fitrec_cache.runs.models import COLUMN, model_settings
from fitrec_cache.runs.outputs import OUTPUTS
from fitrec_cache.runs.run_files import (
    RUN_VERSION,
    SUMS,
    read_run_json,
    read_run_settings,
    read_sealed,
    refused_if_damaged,
    unfinished_in,
)
from fitrec_cache.settings.variants import HeadConfig
from fitrec_cache.wording import bounds, command, listed, plural

#: The files of a complete run folder; :data:`HEAD` has the weights of the tested head.
#: A run with a final head, trained on all clips, has :data:`FINAL` too.
HEAD = "head.safetensors"
FILES = (HEAD, OUTPUTS, "metrics.json", "curves.png", "confusion.png", "run.json")
FINAL = "final.safetensors"

#: The answers for the test clips of all runs of one call, beside the runs; for a single run, in its folder.
ANSWERS = "answers.csv"

#: What several seeds answer together, beside them.
TOGETHER = "answers-together.csv"

#: The metrics of several runs of one call, beside them.
SUMMARY = "summary.json"

#: The state of a run folder: no run; a file is missing or damaged; all but the final head; everything.
State = Literal["missing", "damaged", "tested", "whole"]

#: The keys in ``run.json`` of a split's clips.
_SIDES = (*SIDES, "unknown")

_IN_WORDS = {
    "data_sha256": "the clips in the cache",
    "unknown_sha256": "the clips of classes kept apart",
    "split": "which clips are on which side",
}

#: The exceptions that weights and settings of a damaged or hostile run folder cause, besides those of its JSON.
_DAMAGE = (RuntimeError, ArithmeticError, UsageError, safetensors.SafetensorError)


@dataclass(frozen=True, kw_only=True)
class Run:
    """An opened run folder: the content of its ``run.json``, and its (final) head in evaluation mode."""

    folder: Path
    run_json: dict[str, Any] = field(repr=False)  # it names every clip
    head: nn.Module
    labels: list[str]
    calibration: Calibration


def check_out(folder: Path, described: dict[str, Any], *, overwrite: bool) -> State:
    """Say whether a folder already holds a run with the same settings; refuse a folder that holds anything else.

    Args:
        folder: The folder for the run.
        described: All settings that define the run, as they will be in ``run.json``.
        overwrite: Whether an existing run may be replaced.

    Returns:
        The state of the run in the folder.

    Raises:
        UsageError: If the folder may not be written to.
        StoreError: If a file in it cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file: expected a new folder")
    if not (folder / "run.json").exists():
        if _holds_something_else(folder):
            raise UsageError(f"--out {folder} holds something that is not a run: choose a new folder")
        return "missing"
    if overwrite:
        return "missing"
    try:
        there = read_run_json(folder / "run.json")
    except StoreCorrupt as error:
        raise StoreCorrupt(f"{error}. Add --overwrite to train, or remove {folder}") from error
    wanted = {"run_version": RUN_VERSION, **parse_json(canonical_json(described))}
    final = wanted.pop("final")  # the tested head is the same with or without a final one
    if changed := _differences(there, wanted):
        raise UsageError(
            f"--out {folder} already holds a run made with other settings ({', '.join(changed)}): choose another "
            "folder, remove this one, or add --overwrite (train-head, reproduce)"
        )
    if not _is_sound(folder, there):
        return "damaged"
    return "tested" if final and not there.get("final") else "whole"


def _is_sound(folder: Path, run: Mapping[str, Any]) -> bool:
    """Say whether all files of a run exist and its heads can be read; whether its outputs can, ``read_result`` says."""
    for name in (*FILES, FINAL) if run.get("final") else FILES:
        try:
            with opened_file(folder / name):
                pass
        except FileNotFoundError:
            return False
        except OSError as error:  # unreadable does not mean damaged
            raise StoreError(f"{folder / name} cannot be read: {error.strerror}") from error
    try:
        read_run(folder)
        if run.get("final"):  # otherwise read_run has just read it
            safetensors.torch.load(read_sealed(folder, HEAD, run))
    except (StoreCorrupt, safetensors.SafetensorError):
        return False
    return True


def add_final(folder: Path, head: nn.Module) -> None:
    """Add the final head to an existing run; its tested head and all metrics are left unchanged.

    Raises:
        StoreError: If the folder cannot be written.
    """
    run = read_run_json(folder / "run.json")
    data = safetensors.torch.save(head.state_dict())
    write_atomic(folder / FINAL, data)
    write_json(folder / "run.json", run | {"final": True, SUMS: run.get(SUMS, {}) | {FINAL: sum_of(data)}})


def keep_column(folder: Path, found: str) -> None:
    """Store the digest of a split's column in the ``run.json`` of an older run that fits it.

    Raises:
        StoreError: If it cannot be written.
    """
    run = read_run_json(folder / "run.json")
    if run.get(COLUMN) != found:
        write_json(folder / "run.json", run | {COLUMN: found})


def refuse_other_runs(out: Path, folders: Sequence[Path]) -> None:
    """Refuse a folder that holds runs of another call, which would be mistaken for runs of this one.

    Raises:
        UsageError: If ``out`` or a folder in it holds a run that is not among ``folders``.
    """
    others = [p for p in (out, *_runs_in(out)) if p not in folders and (p / "run.json").exists()]
    if others and out not in others:
        raise UsageError(
            f"--out {out}: {others[-1]} holds a run of an earlier call, which this one would not replace: choose "
            "another folder, or, if only the seeds differ, give the earlier ones too (what is there is kept)"
        )
    if others:
        raise UsageError(f"--out {out} is itself the run of one seed or fold: choose another folder for several")


def _runs_in(folder: Path) -> list[Path]:
    """Return the run folders directly in a folder; hidden ones, such as those of killed writers, are ignored."""
    return sorted(p.parent for p in folder.glob("*/run.json") if not p.parent.name.startswith("."))


def _models_in(folder: Path) -> set[str]:
    """Return the names of the subfolders that contain run folders."""
    found = [path.parent for path in folder.glob("*/*/run.json")]
    return {run.parent.name for run in found if not run.name.startswith(".")}


def _holds_something_else(folder: Path) -> bool:
    """Say whether a folder contains files that are not of a run, or not of one that was interrupted."""
    inside = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and not is_clutter(p.name)]
    names = {str(p) for p in inside if not p.parts[0].startswith(TEMPORARY)} - {ANSWERS}
    orders = [sorted({*FILES, *final} - {"run.json"}) for final in ((), (FINAL,))]  # in which they are put in place
    return not any(names == set(order[: len(names)]) for order in orders)


def _identities(sources: Any) -> Any:
    """Return a run's ``sources`` without what does not affect values: where the weights were, and versions."""
    if not isinstance(sources, list):
        return sources
    return [{k: v for k, v in s.items() if k != "origin"} if isinstance(s, dict) else s for s in sources]


def _differences(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the names of the settings in which a stored run and the requested one differ.

    Splits are compared by the clips on their sides; where the lists that named the clips are stored does not matter.
    Nor does the origin of features that have the same identity.
    """

    def plain(key: str, value: Any) -> Any:
        if key == "split" and isinstance(value, dict):
            return {k: v for k, v in value.items() if k not in ("rule", "notes")}
        return _identities(value) if key == "sources" else value

    def named(key: str, value: Any, other: Any) -> str:
        if key in ("head", "training") and isinstance(other, dict):
            return ", ".join(k for k in value if other.get(k) != value[k]) or key
        alike = key == "split" and isinstance(other, dict) and all(other.get(k) == value[k] for k in _SIDES)
        if alike and other.get("seed") != value.get("seed"):
            return "--split-seed"
        return _IN_WORDS.get(key, key)

    return [named(k, v, there.get(k)) for k, v in wanted.items() if plain(k, there.get(k)) != plain(k, v)]


def write_run(
    folder: Path,
    *,
    head: nn.Module,
    final: nn.Module | None,
    run: dict[str, Any],
    metrics: dict[str, Any],
    outputs: bytes,
    out: Path,
) -> None:
    """Write head, settings, metrics, outputs and pictures; an existing run stays until the new one is complete.

    ``run.json`` is written last, so a folder that has one is complete. Tables over several runs in the call's folder
    ``out`` are removed: they describe the previous runs, and are written again when all runs are complete.

    Raises:
        StoreError: If the folder cannot be written.
    """
    with staged(folder, f"the run {folder}") as here:
        tensors = {HEAD: safetensors.torch.save(head.state_dict()), OUTPUTS: outputs}
        tensors |= {} if final is None else {FINAL: safetensors.torch.save(final.state_dict())}
        for name, data in tensors.items():
            write_atomic(here / name, data)
        sums = {name: sum_of(data) for name, data in tensors.items()}
        _write_figures(here, {**run, SUMS: sums}, metrics)
        tables = [out / ANSWERS, out / TOGETHER, out / SUMMARY] if folder != out else []
        for path in (*tables, *(folder / name for name in ("run.json", FINAL, ANSWERS))):
            path.unlink(missing_ok=True)
        put_in_place(here, folder, [*sorted(p.name for p in here.iterdir() if p.name != "run.json"), "run.json"])


def _write_figures(folder: Path, run: dict[str, Any], metrics: dict[str, Any]) -> None:
    from fitrec_cache.runs.run_pictures import confusion_png, curves_png

    write_json(folder / "metrics.json", metrics)
    title = f"{metrics['variant']} on {metrics['backbone']}, split {metrics['split']}, seed {metrics['seed']}"
    curves_png(metrics["history"], folder / "curves.png", title=title, best_epoch=metrics["best_epoch"])
    confusion = np.array(metrics["confusion"], dtype=np.int64)
    told = bounds(metrics["accuracy_ci95"])
    figures = f"accuracy {metrics['accuracy']:.1%} ({told}), n = {metrics['n_test']}"
    confusion_png(confusion, metrics["labels"], folder / "confusion.png", title=f"{title}\n{figures}")
    write_json(folder / "run.json", {"run_version": RUN_VERSION, **run})


def read_run(folder: Path) -> Run:
    """Open a run folder.

    Raises:
        UsageError: If it is not a run folder.
        FitrecError: If it was written by another program version.
        StoreCorrupt: If its files are damaged or do not belong together.
    """
    if not (folder / "run.json").is_file():
        raise no_run(folder)
    settings = read_run_settings(folder)
    with refused_if_damaged(folder, *_DAMAGE):
        name = FINAL if settings.get("final") else HEAD
        config = HeadConfig.from_dict(settings["head"])
        labels = [str(label) for label in settings["labels"]]
        if len(labels) != config.n_classes:
            raise StoreCorrupt(f"{folder}/run.json names {len(labels)} labels for {config.n_classes} classes")
        stored = safetensors.torch.load(read_sealed(folder, name, settings))
        head = _with_weights(config, stored, folder / name)
        calibration = Calibration.of(settings)
        return Run(folder=folder, run_json=settings, head=head.eval(), labels=labels, calibration=calibration)


@plain_arguments
def read_runs(folder: Path) -> list[Run]:
    """Open the runs of a folder that answer together: all seeds of one split, or a single run.

    For a folder made by ``learn``, or the folder of one of its calls, these are the runs of the model that ``learn``
    chose; if there were several calls, of the latest.

    Raises:
        UsageError: If there is no run, or the runs are not seeds of one call: folds, for example, each leave out other
            clips.
        FitrecError: If one was written by another program version.
        StoreCorrupt: If files are damaged or do not belong together.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file: give the run folder {folder.parent}")
    folder = chosen_by_learn(folder)
    seeds = _runs_in(folder)
    if unfinished := [path.name for path in unfinished_in(folder)]:
        raise UsageError(
            f"{folder}: not finished: {', '.join(unfinished)}, so not all seeds can answer. Run the same train-head "
            "again, name one of the runs in it, or remove the folders of those that cannot be finished"
        )
    if seeds and (below := sorted(_models_in(folder))):
        raise UsageError(
            f"{folder} holds runs of several models, {listed([run.name for run in seeds] + below, most=5)}: name one"
        )
    if (folder / "run.json").is_file() or not seeds:
        return [read_run(folder)]
    if folds := {str(fold) for run in seeds if (fold := read_run_settings(run).get("fold"))}:
        raise UsageError(
            f"{folder} holds {plural(len(folds), 'fold')}, each of which left clips out: name one of them, or train on "
            "one split"
        )
    runs = [read_run(seed) for seed in seeds]
    if len({bool(run.run_json.get("final")) for run in runs}) > 1:
        raise UsageError(
            f"{folder}: not all seeds have their final head yet: run the same train-head --final, or learn, again"
        )
    if apart := _apart(runs):
        raise UsageError(
            f"{folder} holds runs of different {', '.join(apart)}: expected seeds of one call. Name one of them"
        )
    if len({run.run_json.get("seed") for run in runs}) < len(runs):
        raise UsageError(f"{folder} holds two runs of one seed: expected seeds of one call. Name one of them")
    return runs


def _apart(runs: Sequence[Run]) -> list[str]:
    """Return the settings that differ between runs and make them different models."""
    with refused_if_damaged(f"a run in {runs[0].folder.parent}", *_DAMAGE):
        models = [model_settings(run.run_json) for run in runs]
    changed = [name.rstrip(":") for name in models[0] if any(each.get(name) != models[0][name] for each in models)]
    return ["labels"] * any(run.labels != runs[0].labels for run in runs) + changed


def _with_weights(config: HeadConfig, stored: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Return a head with these weights; wrong shapes are refused before memory for the head is allocated."""
    with torch.device("meta"):
        head = build_head(config)
    expected = {name: tuple(v.shape) for name, v in head.state_dict().items()}
    got = {name: tuple(v.shape) for name, v in stored.items()}
    wrong = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
    if wrong:
        raise StoreCorrupt(
            f"{path} is not of the head that run.json describes: {wrong[0]} has shape "
            f"{got.get(wrong[0])}, expected {expected.get(wrong[0])}. Train the head again"
        )
    if not all(bool(torch.isfinite(v).all()) for v in stored.values()):
        raise StoreCorrupt(f"{path} holds values that are not finite. Train the head again")
    head.load_state_dict({name: v.to(torch.float32) for name, v in stored.items()}, assign=True)
    return head


def no_run(folder: Path) -> UsageError:
    """Return the error for a folder that is not a run."""
    if inside := sorted({run.name for run in _runs_in(folder)} | _models_in(folder)):
        return UsageError(f"{folder} holds no run itself, but there are some in {listed(inside)}: name one of these")
    if (folder / "cache").is_dir():
        return UsageError(f"{folder} holds no model yet, as `learn` did not finish: run the same command again")
    return UsageError(f"no run at {folder}: expected a folder made by `{command('train-head', out=folder)}`")
