"""Reproduce the paper in one call: all presets, variants, splits and seeds, both tables beside ours, a report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fitrec_cache.backbones.pretrained import BackboneChoice
from fitrec_cache.cache import Cache
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.devices import check_jobs
from fitrec_cache.common.files import Plain, is_there, refuse_others, write_json
from fitrec_cache.common.progress import Notes
from fitrec_cache.compare import compare
from fitrec_cache.dataset.clips import Clip
from fitrec_cache.dataset.find_clips import find_clips
from fitrec_cache.dataset.folds import folds_of_clips
from fitrec_cache.dataset.rules import short_rule
from fitrec_cache.dataset.splits import check_seeds
from fitrec_cache.errors import UsageError
from fitrec_cache.extract import extract
from fitrec_cache.extraction.extract_report import refuse_without_features
from fitrec_cache.extraction.known_videos import as_extracted
from fitrec_cache.params import params
from fitrec_cache.report import report
from fitrec_cache.report.build import GENERATOR
from fitrec_cache.runs.results import TrainReport
from fitrec_cache.settings.paper import TABLE_II
from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.settings.variants import VARIANTS
from fitrec_cache.storage.root import MARKER
from fitrec_cache.train import train_head
from fitrec_cache.training.loading import load_clips, refuse_answer

#: The paper's models that learn from features.
MODELS = ("resnet50-lstm-attention", "efficientnet-lstm-attention", "vit-lstm")

#: The backbone of each.
BACKBONES = tuple(VARIANTS[name].backbone for name in MODELS)

#: The presets for frames, and the recipe used with each.
RECIPE_OF = {"paper": "paper", "native": "native", "grid": "native"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model under one preset and split, over all seeds.

    Attributes:
        preset: Preset for frames: ``paper``, ``native`` or ``grid``.
        split: The split rule; for lists, their names.
        variant: The head.
        backbone: Its features.
        seeds: Number of heads trained (per fold).
        n: Number of test clips of one seed, over all its folds.
        figures: Mean over seeds of ``accuracy``, ``top5_accuracy``, ``precision_weighted``, ``recall_weighted``,
            ``f1_weighted``, ``f1_macro``; with several seeds also ``accuracy_sd``, the standard deviation over them.
        printed: The accuracy printed in the paper for this variant; None if there is none.
        seconds: Time to train one head.
    """

    preset: str
    split: str
    variant: str
    backbone: str
    seeds: int
    n: int
    figures: dict[str, float]
    printed: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReproduceReport(Plain):
    """The result of :func:`reproduce`.

    Attributes:
        out: The output folder.
        page: The HTML report.
        extract: Number of clips done, reused and failed, and seconds, for each preset in this call.
        table1: The paper's Table I beside our counts.
        table2: One row per preset, split and variant.
        gap: For each preset and variant, the mean accuracy with ``random`` minus that with ``group``, which has the
            same sizes and seeds; empty unless both are asked for.
        comparisons: Comparisons in words, for each pair of models with the same preset and split.
        failed: Clips that could not be used.
        notes: Notes for the user.
        seconds: Wall time of this call.
    """

    out: Path
    page: Path
    extract: dict[str, Any]
    table1: dict[str, Any]
    table2: tuple[Row, ...]
    gap: dict[str, float]
    comparisons: tuple[str, ...]
    failed: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    seconds: float


@plain_arguments
def reproduce(
    videos: Path,
    *,
    out: Path,
    backbone: Sequence[str] = BACKBONES,
    classes: str | None = None,
    root: Path | None = None,
    split: Sequence[str] = ("random", "group"),
    seed: Sequence[int] = (0, 1, 2),
    preset: Sequence[str] = ("paper", "native"),
    frames: bool = False,
    overwrite: bool = False,
    epochs: int | None = None,
    device: str = "auto",
    compile: bool = False,
    jobs: int = 1,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> ReproduceReport:
    """Repeat the paper's experiments, and those that it should have included, on any videos.

    Features are made with the paper's preprocessing (``paper``: 64x64 pixels, enlarged, / 255), with each backbone's
    own (``native``), or with the latter keeping positions in the picture (``grid``: nine times the values). Heads on
    ``paper`` features are trained with the recipe ``paper``, on the others with ``native``; each is accompanied by the
    baseline ``mean``. An interrupted call is resumed.

    Args:
        videos: Folder of class folders, UCF101-style list or manifest.
        out: Folder for the cache, the runs, ``reproduce.json`` and ``report.html``.
        backbone: Three backbones, as ``NAME`` or ``NAME=WEIGHTS``: for the models on ResNet50, EfficientNet and ViT.
        classes: ``fitness35``, names separated by commas, or a file of names; None for all.
        root: Folder that a manifest's or list's paths are relative to.
        split: Rules of :func:`fitrec_cache.dataset.folds.make_folds`; for UCF101 also ``official1`` to ``official3``.
        seed: Seeds of split and training.
        preset: Some of ``paper``, ``native`` and ``grid``.
        frames: Also train ``lrcn`` and ``convlstm``, which take 64x64 frames; slow without a GPU.
        overwrite: Train existing heads again, for example with other videos or another number of epochs.
        epochs: Number of epochs, with recipe ``paper`` the greatest; None for each recipe's.
        device: Device on which frames are embedded; heads are trained on the CPU, where a seed gives the same bits.
        compile: Compile the backbones first; see :func:`fitrec_cache.extract.extract`.
        jobs: Number of heads to train in parallel; see :func:`fitrec_cache.train.train_head`.
        progress: Show progress bars on standard error.
        tell: Called with each note on the videos as soon as it is known.

    Returns:
        The tables.

    Raises:
        UsageError: For wrong arguments.
        StoreError: If ``out`` cannot be written.
    """
    started = time.perf_counter()
    refuse_others(out / "reproduce.json", "--out", '"page"', "a result of `reproduce`")
    refuse_others(out / "report.html", "--out", GENERATOR, "a report")
    _check(backbone, preset, split, seed, epochs, jobs)
    cache = out / "cache"
    found = find_clips(videos, root=root, classes=classes)
    refuse_answer(clip.label for clip in found.clips)
    clips = as_extracted(found, cache)
    _refuse_other_clips(cache, clips, out)
    for rule in split:  # check the splits now, not after hours of extraction
        for number in seed:  # with few groups, some seeds leave a side empty
            folds_of_clips(rule, clips, seed=number)
    said = Notes(tell)  # collected, because most notes are the same for every preset
    extracted: dict[str, Any] = {}
    features: dict[tuple[str, str], str] = {}
    for name in preset:
        done = extract(
            videos,
            cache=cache,
            backbone=backbone,
            preset=name,
            classes=classes,
            root=root,
            device=device,
            compile=compile,
            progress=progress,
            tell=said.add_new,
        )
        refuse_without_features(done, Cache(cache))
        made = done.to_dict()
        made["failed"] += [{"clip_id": path, "path": path, "reason": "cannot be read"} for path in done.unread]
        features |= {(name, of): store for of, store in done.features.items()}
        extracted[name] = {k: made[k] for k in ("clips", "done", "reused", "failed", "seconds", "notes")}
    planned = list(_list_jobs(preset, split, backbone, frames=frames))
    trained: dict[_Job, TrainReport] = {}
    for each in dict.fromkeys((job.preset, job.features) for job in planned):  # load features once for all splits
        store = features.get(each)
        ones = [job for job in planned if (job.preset, job.features) == each]
        named, kind = ([store], each[0]) if store else ([], None)
        data = load_clips(cache, None, ones[0].variant, named, kind, progress=progress)
        for job in ones:
            trained[job] = train_head(
                out=out / "runs" / job.folder,
                features=data,
                variant=job.variant,
                split=job.split,
                seed=seed,
                recipe=RECIPE_OF[job.preset],
                epochs=epochs,
                overwrite=overwrite,
                jobs=jobs,
                progress=progress,
            )
        del data  # free memory before the next features are loaded
    families: dict[tuple[str, str], list[Path]] = {}
    for job in planned:
        families.setdefault((job.split, job.preset), []).append(out / "runs" / job.folder)
    folders = [each for family in families.values() for each in family]
    compared = compare(folders, families=list(families.values()))
    page = report(folders, out=out / "report.html", cache=cache, compared=compared, progress=progress)
    rows = tuple(_row(job, trained[job].to_dict()) for job in planned)
    notes = [
        f"{short_rule(job.split)}, {job.preset}, {job.features}: {n}" for job in planned for n in trained[job].wrong
    ]
    failed = {f["clip_id"]: f for made in extracted.values() for f in made["failed"]}
    result = ReproduceReport(
        out=out,
        page=page.out,
        extract=extracted,
        table1=params().to_dict(),
        table2=rows,
        gap=_gap(rows),
        comparisons=tuple(pair.text for pair in compared.pairs),
        failed=tuple(failed.values()),
        notes=tuple(dict.fromkeys([*notes, *_left_aside(out, folders)])),
        seconds=time.perf_counter() - started,
    )
    write_json(out / "reproduce.json", result.to_dict())
    return result


def _check(
    backbone: Sequence[str],
    preset: Sequence[str],
    split: Sequence[str],
    seed: Sequence[int],
    epochs: int | None,
    jobs: int,
) -> None:
    """Raise UsageError for invalid arguments, before hours of work."""
    if len(backbone) != len(MODELS):
        raise UsageError(f"{len(backbone)} backbones: expected three, for {', '.join(MODELS)}")
    unknown = [p for p in preset if p not in RECIPE_OF]
    if unknown or not preset or not split:
        got = f"presets {unknown or list(preset)} and splits {list(split)}"
        raise UsageError(f"{got}: expected at least one of each, presets {', '.join(RECIPE_OF)}")
    if len(set(preset)) < len(preset):
        raise UsageError(f"presets {list(preset)}: expected each once")
    if "auto" in split or len(set(split)) < len(split):
        raise UsageError(f"splits {list(split)}: expected each once, and by its own name (auto is group or random)")
    check_seeds(seed)
    get_recipe("paper").change(epochs=epochs)
    check_jobs(jobs)


@dataclass(frozen=True)
class _Job:
    """One model to train with one preset and split; ``features`` is a backbone's name, or ``frames``."""

    preset: str
    split: str
    variant: str
    features: str

    @property
    def folder(self) -> Path:
        return Path(self.preset) / _plain(self.split) / f"{self.variant}-{_plain(self.features)}"


def _list_jobs(preset: Sequence[str], split: Sequence[str], backbone: Sequence[str], *, frames: bool) -> Iterator[_Job]:
    """Yield the models to train: for each backbone's features, its model and the baseline."""
    names = [BackboneChoice.parse(text).name for text in backbone]
    for rule in split:
        for kind in preset:
            for model, name in zip(MODELS, names, strict=True):
                for variant in (model, "mean"):
                    yield _Job(kind, rule, variant, name)
        if frames:  # these take 64x64 pixels regardless of the preset, and belong to the paper
            for variant in (name for name, v in VARIANTS.items() if v.takes_pixels):
                yield _Job("paper", rule, variant, "frames")


def _refuse_other_clips(cache: Path, asked: Sequence[Clip], out: Path) -> None:
    """Raise UsageError if a cache holds clips of another call, because heads would be trained on them too."""
    if not is_there(cache / MARKER):
        return
    names = {clip.clip_id for clip in asked}
    held = [clip.clip_id for clip in Cache(cache).entries() if not clip.problem]
    if others := [name for name in held if name not in names]:
        raise UsageError(
            f"--out {out} holds {len(held)} clips of an earlier call, of which this one, with {len(names)} clips, does "
            f"not ask for {len(others)}, such as '{others[0]}': choose another folder, or give the same videos and "
            "classes"
        )


def _left_aside(out: Path, made: Sequence[Path]) -> list[str]:
    """Return a note on runs of earlier calls that are not in the tables of this one."""
    others = [p for p in sorted((out / "runs").glob("*/*/*")) if p.is_dir() and p not in made]
    if not others:
        return []
    which = ", ".join(dict.fromkeys(f"{p.parts[-2]} ({p.parts[-3]})" for p in others))
    return [
        f"{len(others)} models of earlier calls are not in these tables: {which}. To have all together, give all "
        "presets and splits in one call: what is trained is kept"
    ]


def _row(job: _Job, trained: dict[str, Any]) -> Row:
    parts = trained["pooled"] or trained["runs"]
    names = ("accuracy", "top5_accuracy", "precision_weighted", "recall_weighted", "f1_weighted", "f1_macro")
    tested = [p["n" if trained["pooled"] else "n_test"] for p in parts]
    figures = {name: float(np.average([p[name] for p in parts], weights=tested)) for name in names}
    printed = {row.variant: row.accuracy for row in TABLE_II}
    return Row(
        preset=job.preset,
        split=short_rule(job.split),
        variant=job.variant,
        backbone=trained["runs"][0]["backbone"],
        seeds=len(parts),
        n=tested[0],
        figures=figures | ({"accuracy_sd": trained["accuracy_std"]} if len(parts) > 1 else {}),
        printed=printed.get(job.variant),
        seconds=float(np.mean([r["seconds"] for r in trained["runs"]])),
    )


def _gap(rows: Sequence[Row]) -> dict[str, float]:
    """Return how much higher each model's accuracy is with the split ``random`` than with ``group``.

    Other splits are not compared, because their sizes and test clips differ.
    """
    accuracy = {(r.split, r.preset, r.variant, r.backbone): r.figures["accuracy"] for r in rows}
    return {
        f"{preset}: {variant} on {backbone}, random less group": value - accuracy["group", preset, variant, backbone]
        for (split, preset, variant, backbone), value in accuracy.items()
        if split == "random" and ("group", preset, variant, backbone) in accuracy
    }


def _plain(text: str) -> str:
    """Return a folder name for any text; for a long text its end, with a hash that keeps it unique."""
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in text)
    return name if len(name) <= 60 else f"{hashlib.sha256(text.encode()).hexdigest()[:8]}-{name[-50:]}"
