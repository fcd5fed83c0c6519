"""From sorted videos to a recogniser in one call: features, heads, choice of a model, final training, and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fitrec_cache.backbones.pretrained import EMBEDDED, BackboneChoice
from fitrec_cache.cache import Cache, HeldClip, pick_features
from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.devices import check_jobs
from fitrec_cache.common.files import Plain, digest, is_folder, is_there, write_json
from fitrec_cache.common.progress import Notes
from fitrec_cache.compare import ModelFigures, compare_runs
from fitrec_cache.dataset.clips import columns
from fitrec_cache.dataset.find_clips import ClipList, choose_classes, find_clips
from fitrec_cache.dataset.folds import Fold, folds_of_clips, make_folds
from fitrec_cache.dataset.rules import check_rule
from fitrec_cache.dataset.splits import check_seeds
from fitrec_cache.errors import StoreError, UsageError, unknown_name
from fitrec_cache.extract import SAMPLES, extract
from fitrec_cache.extraction.extract_report import ExtractReport, FailedClip, by_reason, refuse_without_features
from fitrec_cache.extraction.known_videos import as_extracted
from fitrec_cache.features import distinct_clips
from fitrec_cache.report import report
from fitrec_cache.report.models import gather
from fitrec_cache.report.records import read_records
from fitrec_cache.runs.learned import LEARNED, chosen_by_learn, time_of_last
from fitrec_cache.runs.results import TrainReport
from fitrec_cache.settings.poses import POSES, USUAL_POSE
from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.settings.variants import VARIANTS, heads_for
from fitrec_cache.storage.store import Store
from fitrec_cache.train import train_head
from fitrec_cache.training.loading import refuse_answer
from fitrec_cache.training.training_time import training_seconds, usual_sides
from fitrec_cache.wording import command, listed, plural, roughly

#: All heads share one split, so that they are compared on the same clips and the joint answer of their seeds is tested.
_SPLIT_SEED = 0

_RECIPE = "native"

#: Folds of the command that tests every clip, and from which width of the test's interval on it is told.
_FOLDS, _WIDE = "kfold:5", 0.2

#: Splits that ``learn`` draws: the user gave no sides.
_DRAWN = ("auto", "group", "random")

#: The greatest number of reasons for not using clips that are told.
_MOST_REASONS = 10


@dataclass(frozen=True, kw_only=True)
class LearnReport(Plain):
    """The result of :func:`learn`.

    Attributes:
        out: The folder given to ``learn``.
        run: Folder of the chosen model, for ``predict --run`` and ``watch --run``.
        variant: The variant of the chosen model.
        backbone: Its features.
        chosen: Its metrics on validation and test clips, averaged over its seeds.
        models: The metrics of all models, the best on test clips first.
        trained: The report of its training: ``ensemble`` has the joint answers of several seeds on test clips.
        extracted: The report of the extraction.
        left_out: Ids of clips that cannot be used. For other clips that failed, an earlier video is used.
        page: The HTML report, beside the models.
        leaks: Whether some test clips look like training clips, by any of the backbones, or share their group.
        groups_known: Whether each clip's group (recording, person) is known.
        earlier: The model that answered for ``out`` before this call, if it was another one; it is still there.
        in_folds: A command that tests the chosen model on every clip, by heads trained without it; None if the
            accuracy's interval is narrow, or the clips cannot be divided in this way.
        notes: Notes for the user.
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
    groups_known: bool
    earlier: Path | None
    in_folds: str | None
    notes: tuple[str, ...]
    seconds: float

    @property
    def answers(self) -> dict[str, Any]:
        """The metrics of the answers on test clips, as ``predict`` gives them: ``accuracy``, ``accuracy_ci95``, ...

        The names are those of ``trained.ensemble``, also if a single seed answers.
        """
        return self.trained.answers

    @property
    def n_learned(self) -> int:
        """Number of clips on which the heads used by ``predict`` were trained: all clips on any side."""
        first = self.trained.runs[0]
        return first.n_train + first.n_val + first.n_test

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        beside = {"answers": self.answers, "n_learned": self.n_learned}
        return super().to_dict() | beside | {"seconds": round(self.seconds, 3)}


@plain_arguments
def learn(
    videos: Path,
    *,
    out: Path,
    backbone: Sequence[str] = (EMBEDDED,),
    poses: bool = False,
    preset: str = "native",
    variant: Sequence[str] = (),
    classes: str | None = None,
    root: Path | None = None,
    group_by: str | None = None,
    split: str = "auto",
    seed: Sequence[int] = (0, 1, 2),
    epochs: int | None = None,
    device: str = "auto",
    compile: bool = False,
    jobs: int = 1,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> LearnReport:
    """Make a recogniser from sorted videos: runs ``extract``, ``train-head``, ``compare`` and ``report`` in turn.

    On each backbone's features, a head with an LSTM and the baseline ``mean`` are trained with several seeds, all on
    the same split. The model with the most correct validation clips is chosen (if equal, the one with the lowest
    validation loss), tested on clips that were used neither for training nor for choosing, and finally trained on all
    clips.

    An interrupted call is resumed. If videos were added or settings changed, the same call makes a new recogniser
    beside the earlier one: each set of clips, split and settings has its own folder in ``out/runs``, with
    ``learn.json`` and ``report.html``. Clips of earlier calls that are not among ``videos`` are not used, unless a
    folder cannot be read; their features are kept.

    Args:
        videos: A folder of class folders, a CSV manifest, or a UCF101-style list; see
            :func:`fitrec_cache.dataset.find_clips.find_clips`.
        out: Folder for the cache and the runs.
        backbone: ``NAME`` or ``NAME=WEIGHTS``, one or several to choose from; see
            :func:`fitrec_cache.backbones.backbone.load_backbone`.
        poses: Give heads poses beside each backbone's features: those of ``blazepose_full``, or of the networks of
            poses that ``backbone`` names.
        preset: ``native``, ``grid``, ``paper`` or ``table1``.
        variant: Variants to choose from. Empty: the one with an LSTM that matches the backbone, and ``mean``.
        classes: ``fitness35``, names separated by commas, or a file of names; None for all.
        root: Folder that a manifest's or list's paths are relative to.
        group_by: The manifest column with a clip's group, or ``folder``.
        split: A rule of :func:`fitrec_cache.dataset.folds.make_folds` that makes a single split.
        seed: Seeds of the initial weights and the batch order; the heads of all seeds answer together.
        epochs: Exact number of epochs; None for the recipe's.
        device: Device on which frames are embedded; heads are trained on the CPU, where a seed gives the same bits.
        compile: Compile the backbones first; see :func:`fitrec_cache.extract.extract`.
        jobs: Number of heads to train in parallel; see :func:`fitrec_cache.train.train_head`.
        progress: Show progress bars on standard error.
        tell: Called with each note of the report as soon as it is known, and before training with about how long that
            takes, unless all models are there.

    Returns:
        The chosen model and its metrics.

    Raises:
        UsageError: For wrong arguments, or clips that cannot be split in this way, before anything is decoded.
        StoreError: If ``out`` cannot be written.
    """
    started = time.perf_counter()
    _check(variant, split, seed, epochs, jobs)
    if poses and preset != "native":
        raise UsageError(f"--poses goes with preset native only, got {preset}: leave one of them out")
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
        text = f"{of}: {text}" if of else text
        notes.add_new(text)  # every training on a split repeats the notes about it

    extracted = extract(
        videos,
        cache=cache,
        backbone=_and_poses(backbone) if poses else backbone,
        preset=preset,
        classes=classes,
        root=root,
        group_by=group_by,
        prune=not found.unread,  # otherwise clips may only seem to be missing
        device=device,
        compile=compile,
        progress=progress,
        tell=once,
    )
    opened = Cache(cache)
    refuse_without_features(extracted, opened)
    folders = extracted.features
    inputs = _inputs(folders, poses=poses)
    stores = {name: pick_features(opened, folder)[0] for name, folder in folders.items()}
    left_out = [f for f in extracted.failed if not _is_used(opened.clip(f.clip_id), stores.values())]
    unusable = _say_unusable(left_out, cache)
    for text in unusable:
        once(text)
    try:
        clips = _clips_of(opened, classes)
        _check_alike(opened, clips, stores)
        how = ["poses apart"] * any(name in POSES for name in folders)  # earlier versions trained on them otherwise
        runs = out / "runs" / _name_of(clips, split, [sorted(seed), epochs, *how])
    except UsageError as error:  # for example, too few clips are left
        if tell is None and unusable:  # the notes would be in the report, which will not exist
            raise UsageError(f"{error}. {'. '.join(unusable)}") from error
        raise
    train = partial(
        train_head,
        cache=cache,
        preset=preset,
        classes=classes,
        split=split,
        seed=seed,
        split_seed=_SPLIT_SEED,
        recipe=_RECIPE,
        epochs=epochs,
        jobs=jobs,
        progress=progress,
    )
    heads = [
        (names, head, runs / f"{head}-{'+'.join(folders[name] for name in names)}")
        for names in inputs
        for head in variant or heads_for(names[0])
    ]
    new = [(head, *_widths(names, extracted.backbones)) for names, head, folder in heads if not is_there(folder)]
    if new and tell is not None:
        tell(_how_long(new, clips, len(seed), epochs) + ", less with --jobs" * (jobs > 1))
    models: dict[Path, Callable[..., TrainReport]] = {}
    leaks = False
    for names, head, folder in heads:
        models[folder] = partial(train, out=folder, variant=head, backbone=[folders[name] for name in names])
        leaks |= models[folder](tell=partial(once, of="+".join(names) * (len(inputs) > 1))).leaks
    records = read_records(list(models))
    compared, lead = compare_runs(records), gather(records)[0]  # as on the page
    names, run = next((names, at) for names, _, at in heads if lead.first.folder.is_relative_to(at))
    best = next(m for m in compared.models if m.name == lead.name)
    result = models[run](final=True)  # without tell: all notes have been passed on already
    earlier = None
    with suppress(StoreError):  # the damaged file may be the one that is about to be replaced
        earlier = chosen_by_learn(out)
    page = report(list(models), out=runs / "report.html", cache=cache, compared=compared, progress=progress)
    first = result.runs[0]
    in_folds = _in_folds(
        clips,
        split,
        result.answers["accuracy_ci95"],
        cache=cache,
        variant=first.variant,
        backbone=[folders[name] for name in names],
        classes=classes,
        epochs=epochs,
        out=out / "folds" / runs.name,
    )
    made = LearnReport(
        out=out,
        run=run,
        variant=first.variant,
        backbone=first.backbone,
        chosen=best,
        models=compared.models,
        trained=result,
        extracted=extracted,
        left_out=tuple(each.clip_id for each in left_out),
        page=page.out,
        leaks=leaks,
        groups_known=all(clip.group for clip in clips),
        earlier=earlier if earlier not in (out, run) else None,
        in_folds=in_folds,
        notes=tuple(notes.texts),
        seconds=time.perf_counter() - started,
    )
    write_json(runs / LEARNED, made.to_dict() | {"ended": time_of_last(out)})
    return made


def _and_poses(backbones: Sequence[str]) -> list[str]:
    """Return backbones of which one sees poses and one does not, with the usual one for each that is missing."""
    sees = {BackboneChoice.parse(text).name in POSES for text in backbones}
    return [EMBEDDED] * (False not in sees) + [*backbones] + [USUAL_POSE] * (True not in sees)


def _inputs(names: Collection[str], *, poses: bool) -> list[tuple[str, ...]]:
    """Return the names of the backbones whose features a head gets, for each kind of heads."""
    beside = [name for name in names if poses and name in POSES]
    return [(name, *beside) for name in names if name not in beside]


def _check_split(split: str, found: ClipList, cache: Path, notes: Notes) -> None:
    """Raise UsageError if the clips cannot be split in this way, together with the notes on them, which may say why."""
    try:
        first = _first_fold(split, found, cache)
    except UsageError as error:
        notes.add(*found.notes)
        if notes.tell is None and found.notes:
            raise UsageError(f"{error}. Found: {'; '.join(found.notes)}") from error
        raise
    if first.name:
        raise UsageError(
            f"split {split} tests each fold by a head of its own, and learn chooses and tests one model: give another "
            f"split, or extract and then `train-head --split {split}`"
        )


def _first_fold(split: str, found: ClipList, cache: Path) -> Fold:
    """Split the clips as they will be in the cache; with files read, which is slow, only if it fails otherwise."""
    try:
        return folds_of_clips(split, as_extracted(found, cache), seed=_SPLIT_SEED)[0]
    except UsageError:
        return folds_of_clips(split, as_extracted(found, cache, read=True), seed=_SPLIT_SEED)[0]


def _check(variant: Sequence[str], split: str, seed: Sequence[int], epochs: int | None, jobs: int) -> None:
    """Raise UsageError for invalid arguments before anything is decoded."""
    known = [name for name, head in VARIANTS.items() if not head.takes_pixels]
    for name in variant:
        if name not in known:
            raise unknown_name("variant on features", name, known)
    check_rule(split)
    check_seeds(seed)
    check_jobs(jobs)
    get_recipe(_RECIPE).change(epochs=epochs)


def _say_unusable(failed: Sequence[FailedClip], cache: Path) -> list[str]:
    """Return notes on clips that cannot be used, one per reason."""
    alike = by_reason(failed)
    told = [f"{plural(len(ids), 'clip')} cannot be used ({listed(ids, 5)}): {reason}" for reason, ids in alike.items()]
    if len(told) > _MOST_REASONS:
        further = sum(map(len, list(alike.values())[_MOST_REASONS:]))
        shows_all = command("info", cache=cache, clips=True)
        told[_MOST_REASONS:] = [f"{plural(further, 'clip')} cannot be used for other reasons: `{shows_all}` names all"]
    return told


def _is_used(held: HeldClip | None, stores: Iterable[Store]) -> bool:
    """Say whether a clip that failed now is used nevertheless, with its earlier video; `extract` reports that."""
    return held is not None and not held.problem and any(held.video_sha256 in store for store in stores)


def _clips_of(cache: Cache, classes: str | None) -> list[HeldClip]:
    """Return the distinct clips of some classes, or of all."""
    clips, _ = distinct_clips(cache)
    if classes is None:
        return clips
    wanted, _ = choose_classes([c.label for c in clips], classes)
    return [c for c in clips if c.label in wanted]


def _check_alike(cache: Cache, clips: Sequence[HeldClip], stores: Mapping[str, Store]) -> None:
    """Check that all backbones have features of the same clips; an earlier call may have used other videos.

    Raises:
        UsageError: If one lacks some clips, because then models could not be compared on the same clips.
    """
    contents = [clip.video_sha256 for clip in clips]
    known = {name: {key for key in contents if key in held} for name, held in stores.items()}
    every = set().union(*known.values())
    for name, keys in known.items():
        if len(keys) < len(every):
            raise UsageError(
                f"{plural(len(every) - len(keys), 'clip has', 'clips have')} no features of {name}, from an earlier "
                "call: make readable what cannot be read now, or first "
                f"`{command('extract', cache=cache.folder, backbone=name)}`, with --preset and --compile as here"
            )


def _in_folds(clips: Sequence[HeldClip], split: str, interval: tuple[float, float], **settings: Any) -> str | None:
    """Return the command that tests a model in folds; None if the interval is narrow, or it could not be run."""
    low, high = interval
    if high - low < _WIDE or split not in _DRAWN:
        return None
    try:
        make_folds(_FOLDS, **columns(clips), seed=_SPLIT_SEED)
    except UsageError:  # for example, there are too few groups
        return None
    return command("train-head", **settings, split=_FOLDS)


def _widths(names: Sequence[str], of: Mapping[str, int]) -> tuple[int, int]:
    """Return the length of these backbones' features together, and how much of it are poses."""
    return sum(of[name] for name in names), sum(of[name] for name in names if name in POSES)


def _how_long(heads: Sequence[tuple[str, int, int]], clips: Sequence[HeldClip], seeds: int, epochs: int | None) -> str:
    """Return a note with the approximate training time; heads are given as for :func:`training_seconds`."""
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
    """Return a folder name that depends on the clips as they are now, their split and the given settings."""
    told = [[c.clip_id, c.video_sha256, c.label, c.group, dict(c.extra)] for c in clips]
    (fold,) = make_folds(split, **columns(clips), seed=_SPLIT_SEED)
    sides = [side.tolist() for side in fold.split.sides]  # lists of the same name may have changed
    return f"{len(clips)}-clips-{digest([told, split, sides, *settings])[:8]}"
