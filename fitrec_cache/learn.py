"""From sorted videos to a recogniser in one call: features, heads, which to take, a last training, the report."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fitrec_cache.backbones.pretrained import EMBEDDED
from fitrec_cache.cache import Cache, HeldClip, pick_features
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.devices import check_jobs
from fitrec_cache.common.files import Plain, digest, is_folder, is_there, write_json
from fitrec_cache.common.progress import Notes
from fitrec_cache.compare import ModelFigures, compare_runs
from fitrec_cache.dataset.clips import columns
from fitrec_cache.dataset.find_clips import ClipList, choose_classes, find_clips
from fitrec_cache.dataset.folds import Fold, folds_of_clips, make_folds
from fitrec_cache.dataset.splits import check_rule, check_seeds
from fitrec_cache.errors import UsageError, unknown_name
from fitrec_cache.extract import SAMPLES, as_extracted, extract, refuse_without_features
from fitrec_cache.extraction.extract_report import ExtractReport, FailedClip
from fitrec_cache.features import distinct_clips
from fitrec_cache.report import report
from fitrec_cache.report.models import gather
from fitrec_cache.report.records import read_records
from fitrec_cache.runs.results import TrainReport
from fitrec_cache.runs.run import LEARNED, time_of_last
from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.settings.variants import VARIANTS, heads_for
from fitrec_cache.storage.store import Store
from fitrec_cache.train import train_head
from fitrec_cache.training.loading import refuse_answer
from fitrec_cache.training.training_time import training_seconds, usual_sides
from fitrec_cache.wording import listed, plural, roughly

#: All heads share one split, so that what their seeds answer together is tested, and they are chosen on the same clips.
_SPLIT_SEED = 0

_RECIPE = "native"

#: So many reasons why clips cannot be used are told.
_MOST_REASONS = 10


@dataclass(frozen=True, kw_only=True)
class LearnReport(Plain):
    """What :func:`learn` made.

    Attributes:
        out: Its folder.
        run: Folder of the model to use: what ``predict --run`` and ``watch --run`` take.
        variant: That model's head.
        backbone: Its features.
        chosen: Its figures on validation and test clips, averaged over its seeds.
        models: The figures of all models, the best on test clips first.
        trained: Its training: ``ensemble`` has what several seeds answer together on test clips.
        extracted: What became of the videos.
        left_out: Ids of clips that cannot be used. Of others that failed an earlier video is used.
        page: The HTML report, beside the models.
        leaks: Whether some test clips look like training clips, by any of the backbones, or share their group.
        notes: What a person should know.
        seconds: Wall time of this call.
    """

    out: Path
    run: Path
    variant: str
    backbone: str
    chosen: ModelFigures
    models: tuple[ModelFigures, ...]
    trained: TrainReport
    extracted: ExtractReport
    left_out: tuple[str, ...]
    page: Path
    leaks: bool
    notes: tuple[str, ...]
    seconds: float

    @property
    def answers(self) -> dict[str, Any]:
        """What the model answers on the test clips, as ``predict`` does: ``accuracy``, ``accuracy_ci95`` and more."""
        return self.trained.ensemble or self.trained.runs[0].metrics.to_dict()

    @property
    def n_learned(self) -> int:
        """Number of clips that the heads that ``predict`` uses have learned from: all that are on a side."""
        first = self.trained.runs[0]
        return first.n_train + first.n_val + first.n_test

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return super().to_dict() | {"seconds": round(self.seconds, 3)}


@plain_arguments
def learn(
    videos: Path,
    *,
    out: Path,
    backbone: Sequence[str] = (EMBEDDED,),
    preset: str = "native",
    variant: Sequence[str] = (),
    classes: str | None = None,
    root: Path | None = None,
    group_by: str | None = None,
    prune: bool = False,
    split: str = "auto",
    seed: Sequence[int] = (0, 1, 2),
    epochs: int | None = None,
    device: str = "auto",
    compile: bool = False,
    jobs: int = 1,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> LearnReport:
    """Make a recogniser of sorted videos: all that ``extract``, ``train-head``, ``compare`` and ``report`` do, in turn.

    On each backbone's features a head with an LSTM and the baseline ``mean`` are trained with several seeds, all on
    the same split. The model that has most validation clips right, of equal ones that of the lowest validation loss, is
    taken, tested by clips that it was neither trained nor chosen on, and trained once more on all clips.

    A call that was interrupted goes on where it was. After videos were added or settings changed, the same call makes
    another recogniser beside the earlier one: each set of clips, split and settings has a folder of its own in
    ``out/runs``, with ``learn.json`` and ``report.html``.

    Args:
        videos: A folder of class folders, a CSV manifest, or a UCF101-style list; see
            :func:`fitrec_cache.dataset.find_clips.find_clips`.
        out: Folder for the cache and the runs.
        backbone: ``NAME`` or ``NAME=WEIGHTS``, one or several to choose from; see
            :func:`fitrec_cache.backbones.backbone.load_backbone`.
        preset: ``native``, ``grid``, ``paper`` or ``table1``.
        variant: Heads to choose from. Empty: the one with an LSTM that goes with a backbone, and ``mean``.
        classes: ``fitness35``, names separated by commas, or a file of names; None for all.
        root: Folder that a manifest's or list's paths are relative to.
        group_by: The manifest's column that says a clip's group, or ``folder``.
        prune: Take out clips of an earlier call that are not among ``videos``, as those that were deleted.
        split: A rule of :func:`fitrec_cache.dataset.folds.make_folds` that makes one test side.
        seed: Seeds of initial values and order of batches; they answer together.
        epochs: Exactly this many; None for the recipe's.
        device: Where frames are embedded; heads are trained on the CPU, where a seed gives the same bits.
        compile: Compile the backbones first; see :func:`fitrec_cache.extract.extract`.
        jobs: Heads trained at the same time; see :func:`fitrec_cache.train.train_head`.
        progress: Show progress bars on standard error.
        tell: Called with each note of the report as soon as it is known, and before training with about how long that
            takes, unless all models are there.

    Returns:
        Which model was taken, and what it is worth.

    Raises:
        UsageError: For wrong arguments, or clips that cannot be split so, before anything is decoded.
        StoreError: If ``out`` cannot be written.
    """
    started = time.perf_counter()
    _check(variant, split, seed, epochs, jobs)
    if not is_there(videos) and is_folder(out / "cache"):
        raise UsageError(
            f"no such file or folder: {videos}. If you moved your videos, give the new place: what was computed of "
            f"them is in {out} and is used again"
        )
    for folder in (out, out / "runs"):
        if is_there(folder) and not is_folder(folder):
            raise UsageError(f"{folder} is a file: expected a folder for --out")
    found = find_clips(videos, root=root, classes=classes, group_by=group_by)
    refuse_answer(clip.label for clip in found.clips)
    notes, cache = Notes(tell), out / "cache"
    _check_split(split, found, cache, notes)

    def once(text: str, of: str = "") -> None:
        text = f"{of}: {text}" if of and len(backbone) > 1 else text
        notes.add_new(text)  # what is said of a split is said by every training on it

    extracted = extract(
        videos,
        cache=cache,
        backbone=backbone,
        preset=preset,
        classes=classes,
        root=root,
        group_by=group_by,
        prune=prune,
        device=device,
        compile=compile,
        progress=progress,
        tell=once,
    )
    opened = Cache(cache)
    refuse_without_features(extracted, opened)
    stores = {name: pick_features(opened, store) for name, store in extracted.features.items()}
    left_out = [f for f in extracted.failed if not _is_used(opened.clip(f.clip_id), stores.values())]
    unusable = _say_unusable(left_out, cache)
    for text in unusable:
        once(text)
    try:
        clips = _clips_of(opened, classes)
        _check_alike(opened, clips, stores)
        runs = out / "runs" / _name_of(clips, split, [sorted(seed), epochs])
    except UsageError as error:  # what is left is too little
        if tell is None and unusable:  # notes are in a report that will not be
            raise UsageError(f"{error}. {'. '.join(unusable)}") from error
        raise
    common: dict[str, Any] = {"cache": cache, "preset": preset, "classes": classes, "split": split, "seed": seed}
    common |= {"split_seed": _SPLIT_SEED, "recipe": _RECIPE, "epochs": epochs, "jobs": jobs, "progress": progress}
    heads = [(name, store, head) for name, store in extracted.features.items() for head in variant or heads_for(name)]
    new = [(head, extracted.backbones[name]) for name, store, head in heads if not is_there(runs / f"{head}-{store}")]
    if new and tell is not None:
        tell(_how_long(new, clips, len(seed), epochs) + ", less with --jobs" * (jobs > 1))
    models: dict[Path, dict[str, Any]] = {}
    leaks = False
    for name, store, head in heads:
        model = common | {"out": runs / f"{head}-{store}", "variant": head, "backbone": [store]}
        leaks |= train_head(**model, tell=partial(once, of=name)).leaks
        models[model["out"]] = model
    records = read_records(list(models))
    compared, lead = compare_runs(records), gather(records)[0]  # as the page has them
    run = next(folder for folder in models if lead.first.folder.is_relative_to(folder))
    best = next(m for m in compared.models if m.name == lead.name)
    result = train_head(**models[run], final=True)  # all notes were told
    page = report(list(models), out=runs / "report.html", cache=cache, compared=compared, progress=progress)
    made = LearnReport(
        out=out,
        run=run,
        variant=result.runs[0].variant,
        backbone=result.runs[0].backbone,
        chosen=best,
        models=compared.models,
        trained=result,
        extracted=extracted,
        left_out=tuple(each.clip_id for each in left_out),
        page=page.out,
        leaks=leaks,
        notes=tuple(notes.texts),
        seconds=time.perf_counter() - started,
    )
    write_json(runs / LEARNED, made.to_dict() | {"ended": time_of_last(out)})
    return made


def _check_split(split: str, found: ClipList, cache: Path, notes: Notes) -> None:
    """Raise UsageError if the clips cannot be divided so, with what was found of them, which may say why."""
    try:
        first = _first_fold(split, found, cache)
    except UsageError as error:
        notes.add(*found.notes)
        if notes.tell is None and found.notes:
            raise UsageError(f"{error}. Found: {'; '.join(found.notes)}") from error
        raise
    if first.name:
        raise UsageError(f"split {split} tests by heads of several folds, none of which could be taken: give another")


def _first_fold(split: str, found: ClipList, cache: Path) -> Fold:
    """Divide the clips as they will be in the cache; files are read, which takes long, only if nothing else helps."""
    try:
        return folds_of_clips(split, as_extracted(found, cache), seed=_SPLIT_SEED)[0]
    except UsageError:
        return folds_of_clips(split, as_extracted(found, cache, read=True), seed=_SPLIT_SEED)[0]


def _check(variant: Sequence[str], split: str, seed: Sequence[int], epochs: int | None, jobs: int) -> None:
    """Raise UsageError for what cannot be, before anything is decoded."""
    known = [name for name, head in VARIANTS.items() if not head.takes_pixels]
    for name in variant:
        if name not in known:
            raise unknown_name("variant on features", name, known)
    check_rule(split)
    check_seeds(seed)
    check_jobs(jobs, torch.device("cpu"))
    get_recipe(_RECIPE).change(epochs=epochs)


def _say_unusable(failed: Sequence[FailedClip], cache: Path) -> list[str]:
    """Say which clips cannot be used, each reason once."""
    by_reason: dict[str, list[str]] = {}
    for each in failed:
        by_reason.setdefault(each.reason, []).append(each.clip_id)
    told = [
        f"{plural(len(names), 'clip')} cannot be used ({listed(names, 5)}): {reason}"
        for reason, names in by_reason.items()
    ]
    if len(told) > _MOST_REASONS:
        further = sum(map(len, list(by_reason.values())[_MOST_REASONS:]))
        shows_all = shlex.join(["fitrec-cache", "info", "--cache", str(cache), "--clips"])
        told[_MOST_REASONS:] = [f"{plural(further, 'clip')} cannot be used for other reasons: `{shows_all}` names all"]
    return told


def _is_used(held: HeldClip | None, stores: Iterable[Store]) -> bool:
    """Say whether a clip that failed now is used all the same, as its earlier video, which extract says."""
    return held is not None and not held.problem and any(held.video_sha256 in store for store in stores)


def _clips_of(cache: Cache, classes: str | None) -> list[HeldClip]:
    """Return the distinct clips of some classes, or of all."""
    clips, _ = distinct_clips(cache)
    if classes is None:
        return clips
    wanted, _ = choose_classes([c.label for c in clips], classes)
    return [c for c in clips if c.label in wanted]


def _check_alike(cache: Cache, clips: Sequence[HeldClip], stores: Mapping[str, Store]) -> None:
    """Refuse backbones that know different clips, as after an earlier call with other videos and other backbones.

    Raises:
        UsageError: If one lacks some: models could not be compared on the same clips.
    """
    contents = [clip.video_sha256 for clip in clips]
    known = {name: {key for key in contents if key in held} for name, held in stores.items()}
    every = set().union(*known.values())
    for name, keys in known.items():
        if len(keys) < len(every):
            raise UsageError(
                f"{len(every) - len(keys)} clips of an earlier call have no features of {name}: give --prune to take "
                f"out what is not among the videos, or first `extract --cache {cache.folder}` with --backbone {name}, "
                "and with --preset and --compile as here"
            )


def _how_long(heads: Sequence[tuple[str, int]], clips: Sequence[HeldClip], seeds: int, epochs: int | None) -> str:
    """Say about how long it takes to train heads, of which variant and length of features are given."""
    seconds = training_seconds(
        heads,
        sides=usual_sides(len(clips)),
        n_classes=len({clip.label for clip in clips}),
        frames=SAMPLES,
        seeds=seeds,
        recipe=get_recipe(_RECIPE).change(epochs=epochs),
    )
    return f"training takes {roughly(seconds)}: {plural(len(heads), 'model')}, each with {plural(seeds, 'seed')}"


def _name_of(clips: Sequence[HeldClip], split: str, settings: Sequence[Any]) -> str:
    """Return a folder's name for clips as they are now, their split and some settings."""
    told = [[c.clip_id, c.video_sha256, c.label, c.group, dict(c.extra)] for c in clips]
    (fold,) = make_folds(split, **columns(clips), seed=_SPLIT_SEED)
    sides = [side.tolist() for side in fold.split.sides]  # lists of the same name may have changed
    return f"{len(clips)}-clips-{digest([told, split, sides, *settings])[:8]}"
