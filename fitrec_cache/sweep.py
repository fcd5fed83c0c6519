"""Search for a recipe on one's own cache, using validation sides only; the only module that imports optuna."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import (
    Plain,
    is_there,
    make_folder,
    read_file,
    refuse_others,
    remove_unfinished,
    write_atomic,
    write_json,
)
from fitrec_cache.common.progress import Notes, progress_bar
from fitrec_cache.dataset.splits import check_seeds
from fitrec_cache.errors import DivergedError, FitrecError, StoreError, UsageError
from fitrec_cache.evaluation.paired import holm
from fitrec_cache.runs.run_files import refused_if_damaged
from fitrec_cache.settings.recipes import Recipe, get_recipe
from fitrec_cache.settings.variants import ATTENTIONS, NORMALISATIONS, POOLINGS, get_variant
from fitrec_cache.training.loading import load_clips
from fitrec_cache.training.problem import Problem, Right, accuracy
from fitrec_cache.wording import command, options

#: Tuples are ranges ``(low, high, logarithmic)``, lists are choices. Settings that have no effect with the variant, or
#: with what was chosen before them, are not searched: ``normalise`` and ``attention`` come before what depends on them.
SPACE: Mapping[str, Any] = {
    "learning_rate": (1e-4, 1e-2, True),
    "weight_decay": (1e-3, 1.0, True),
    "label_smoothing": [0.0, 0.1, 0.2],
    "balance": [0.0, 0.5],
    "batch_size": [16, 32, 64],
    "schedule": ["constant", "cosine"],
    "normalise": [kind for kind in NORMALISATIONS if kind != "none"],
    "components": [64, 128, 256, 512],
    "input_dropout": (0.0, 0.7, False),
    "dropout": (0.0, 0.7, False),
    "draw": [0.0, 0.5, 0.75],
    "attention": list(ATTENTIONS),
    "pooling": list(POOLINGS),
    "skip_mean": [False, True],
    "bidirectional": [False, True],
    "differences": [False, True],
}

#: The best trials are trained again with this many further seeds before one is chosen, because the best of many trials
#: is partly due to luck.
_FINAL_SEEDS = 3

#: How each line of optuna's journal begins.
_JOURNAL = b'{"op_code"'


@dataclass(frozen=True, kw_only=True)
class SweepReport(Plain):
    """The result of :func:`sweep`; every accuracy is on validation sides.

    Attributes:
        out: Folder of the search; a search is resumed from ``trials.log`` in it.
        variant: The head.
        backbone: The features.
        sources: For each split rule, the options of ``train-head`` for these features, this split and the seeds.
        splits: Rule and seed of each split on which every trial is trained.
        n_val: Number of validation clips of all splits together; a clip counts once per split.
        n_distinct: Number of distinct clips among them.
        tries: Number of trials that were finished, and of those given up early.
        start: Validation accuracy of the recipe ``native``, with the seed of the trials.
        start_again: The same with the seeds of the finalists, for comparison with them.
        finalists: The best trials, best first: ``settings``, ``val_accuracy`` in the search, ``val_accuracy_again``
            with other seeds, and ``p`` of an exact paired test of the latter against ``native`` by groups, adjusted for
            the number of finalists. As the search used the same clips, ``p`` is too small rather than too large.
        space: The settings that were searched.
        notes: Notes that a reader of the result must know.
        seconds: Wall time of this call.
    """

    out: Path
    variant: str
    backbone: str
    sources: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]
    n_val: int
    n_distinct: int
    tries: dict[str, int]
    start: float
    start_again: float
    finalists: tuple[dict[str, Any], ...]
    space: dict[str, Any]
    notes: tuple[str, ...]
    seconds: float

    @property
    def beaten(self) -> bool:
        """Whether the best finalist was better than ``native`` with the same seeds."""
        best: float = self.finalists[0]["val_accuracy_again"]
        return best > self.start_again

    @property
    def commands(self) -> tuple[str, ...]:
        """For each split rule, the ``train-head`` command with the recipe that was found, on the same sides as here."""
        best = dict(self.finalists[0]["settings"])
        attention = best.pop("attention", None)
        changes = [f"{name}={value}" for name, value in best.items()]
        found = options(variant=self.variant, recipe="native", attention=attention, set=changes)
        return tuple(
            command("train-head", *source, *found, out=self.out / f"trained-{i}")
            for i, source in enumerate(self.sources, start=1)
        )

    @property
    def within_chance(self) -> bool:
        """Whether the best finalist cannot be distinguished from ``native`` on these clips, at the usual 5 %."""
        return bool(self.finalists[0]["p"] >= 0.05)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return super().to_dict() | {
            "beaten": self.beaten,
            "within_chance": self.within_chance,
            "commands": list(self.commands),
        }


@plain_arguments
def sweep(
    *,
    out: Path,
    cache: Path | None = None,
    features: Path | None = None,
    variant: str = "resnet50-lstm-attention",
    backbone: Sequence[str] = (),
    preset: str | None = None,
    classes: str | None = None,
    split: Sequence[str] = ("auto",),
    seed: Sequence[int] = (0,),
    trials: int = 60,
    finalists: int = 5,
    epochs: int = 40,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> SweepReport:
    """Search for the recipe with the highest validation accuracy, averaged over splits and seeds.

    The tree-structured Parzen estimator proposes settings. A trial is given up if, after some of the splits, its best
    accuracy so far is below the median of other trials after the same number of splits. The best trials are trained
    again with other seeds, and the best of those is the answer. No split's test side is used for that split; if several
    splits overlap, a note says so. An interrupted call is resumed.

    Args:
        out: Folder of the search; ``sweep.json`` in it is the result.
        cache: Cache folder made by ``extract``; give this or ``features``.
        features: One HDF5 file of features.
        variant: A key of :data:`fitrec_cache.settings.variants.VARIANTS` that is trained on features.
        backbone: Backbones whose cached features are used; those of several are concatenated. Empty: the variant's own.
        preset: ``native``, ``grid``, ``paper`` or ``table1``, if the cache has several.
        classes: Use only some of the cached classes; see :func:`fitrec_cache.dataset.find_clips.find_clips`.
        split: Rules of :func:`fitrec_cache.dataset.folds.make_folds`; their validation sides are used.
        seed: Seeds of the splits.
        trials: Total number of trials, including those of earlier calls, and of other processes with the same ``out``,
            each of which may make one more.
        finalists: Number of best trials to train again.
        epochs: Epochs of every trial; the recipe ``native``, with which they are compared, has its own.
        progress: Show a progress bar on standard error.
        tell: Called with each note of the report as soon as it is known.

    Returns:
        The result of the search.

    Raises:
        UsageError: For wrong arguments.
        FitrecError: If optuna is not installed.
        StoreError: If the cache cannot be read.
    """
    started = time.perf_counter()
    if get_variant(variant).takes_pixels:
        raise UsageError(f"variant {variant} learns from frames, too slowly to be searched: choose one on features")
    for name, value in (("trials", trials), ("finalists", finalists), ("epochs", epochs)):
        if value < 1:
            raise UsageError(f"{name} is {value}: expected 1 or more")
    check_seeds(seed)
    optuna = _optuna()
    data = load_clips(cache, features, variant, backbone, preset, classes=classes, progress=progress)
    problem = Problem.of(data, variant=variant, split=split, seed=seed, epochs=epochs)
    notes = Notes(tell)
    notes.add(*problem.notes)
    if (out / "run.json").exists() or (any(out.glob("*/run.json")) and not (out / "trials.log").exists()):
        raise UsageError(f"--out {out} holds trained heads: choose a folder of its own for the search")
    refuse_others(out / "sweep.json", "--out", '"variant"', "a result of `sweep`")
    _refuse_foreign_journal(out / "trials.log")
    make_folder(out)
    remove_unfinished(out)
    with _writing(out):
        study = _open_study(optuna, out, problem.name)
    native = get_recipe("native")  # as in train-head: with few clips it has more epochs than a trial
    others = range(1, 1 + _FINAL_SEEDS)
    start = accuracy(_judge(problem, native, None, range(1), "native", progress))
    with progress_bar(total=trials, unit="trial", what="sweep", show=progress) as bar:
        bar.update(min(_ended(study), trials))
        while _ended(study) < trials:  # counted anew, because other processes may work on the same search
            with _writing(out):
                study.optimize(_objective(optuna, problem), n_trials=1)
            bar.set_postfix(best=f"{_best_value(study):.3f}", refresh=False)
            bar.update()
    complete = [t for t in study.trials if t.state.name == "COMPLETE"]
    if not complete:
        raise UsageError("no trial was finished: give more --trials")
    different = {json.dumps(t.params, sort_keys=True): t for t in sorted(complete, key=lambda t: t.value)}
    best = sorted(different.values(), key=lambda t: -t.value)[:finalists]
    again = [(t, _judge_again(problem, t.params, others, f"finalist {i}", progress)) for i, t in enumerate(best, 1)]
    ranked = sorted([(t, right) for t, right in again if right], key=lambda pair: -accuracy(pair[1]))
    if not ranked:
        raise UsageError("the best trials diverged with other seeds: give more --trials")
    start_again = _judge(problem, native, None, others, "native again", progress)
    p_values = holm([problem.p_value(right, start_again) for _, right in ranked])
    source = {"cache": cache, "features": features, "backbone": list(backbone), "preset": preset, "classes": classes}
    report = SweepReport(
        out=out,
        variant=variant,
        backbone=problem.backbone,
        sources=tuple(tuple(options(**source, split=rule, seed=list(seed))) for rule in split),
        splits=tuple(each.name for each in problem.splits),
        n_val=sum(len(each.val) for each in problem.splits),
        n_distinct=len(problem.units),
        tries={"finished": len(complete), "given_up": sum(t.state.name == "PRUNED" for t in study.trials)},
        start=start,
        start_again=accuracy(start_again),
        finalists=tuple(
            {"settings": _settings(problem, t.params), "val_accuracy": t.value, "val_accuracy_again": accuracy(right)}
            | {"p": p}
            for (t, right), p in zip(ranked, p_values, strict=True)
        ),
        space=dict(SPACE),
        notes=tuple(notes.texts),
        seconds=time.perf_counter() - started,
    )
    write_json(out / "sweep.json", report.to_dict())
    return report


def _recipe(problem: Problem, params: Mapping[str, Any]) -> tuple[Recipe, str | None]:
    """Return the recipe and the kind of attention that a trial's parameters describe."""
    settings = _settings(problem, params)
    attention = settings.pop("attention", None)
    return get_recipe("native").change(**settings), attention


def _settings(problem: Problem, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's parameters as settings of a recipe."""
    return {**params, "epochs": problem.epochs, "draw": round(params["draw"] * problem.values.shape[1])}


def _objective(optuna: Any, problem: Problem) -> Any:
    """Return the function that optuna calls with a trial."""

    def call(trial: Any) -> float:
        recipe, attention = _recipe(problem, _suggest(trial, problem.variant))

        def report(value: float, step: int) -> None:
            trial.report(value, step)
            if step < len(problem.splits) and trial.should_prune():
                raise optuna.TrialPruned

        try:
            return accuracy(problem.judge(recipe, attention, range(1), report))
        except DivergedError as error:
            raise optuna.TrialPruned(str(error)) from error

    return call


def _suggest(trial: Any, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    head, native = get_variant(variant), get_recipe("native")
    for name, choices in SPACE.items():
        so_far = native.change(normalise=found.get("normalise"))
        if name in so_far.idle(variant, found.get("attention")) or (name == "attention" and len(head.attentions) < 2):
            continue
        if isinstance(choices, tuple):
            low, high, logarithmic = choices
            found[name] = trial.suggest_float(name, low, high, log=logarithmic)
        else:
            found[name] = trial.suggest_categorical(name, choices)
    return found


def _judge(
    problem: Problem, recipe: Recipe, attention: str | None, seeds: Sequence[int], what: str, progress: bool
) -> Right:
    """Return which validation clips a recipe recognises, with a progress bar of the trainings."""
    total = len(problem.splits) * len(seeds)
    with progress_bar(total=total, unit="training", what=what, show=progress) as bar:
        return problem.judge(recipe, attention, seeds, lambda *_: bar.update())


def _judge_again(
    problem: Problem, params: Mapping[str, Any], seeds: Sequence[int], what: str, progress: bool
) -> Right | None:
    """Return which validation clips a trial's recipe recognises with other seeds; None if a training diverges."""
    try:
        return _judge(problem, *_recipe(problem, params), seeds, what, progress)
    except DivergedError:
        return None


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise FitrecError("the search needs optuna: pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _open_study(optuna: Any, out: Path, name: str) -> Any:
    """Open the search in ``out``, or begin one; its journal is plain text, one JSON object per line."""
    journal = str(out / "trials.log")
    lock = optuna.storages.journal.JournalFileOpenLock(journal)  # not the link-based one: some file systems lack links
    lock.acquire()
    try:
        _drop_half_line(Path(journal))
    finally:
        lock.release()
    backend = optuna.storages.journal.JournalFileBackend(journal, lock_obj=lock)
    with refused_if_damaged(journal, AssertionError, remedy="Choose another --out, or remove it to begin anew"):
        storage = optuna.storages.JournalStorage(backend)
        studies = optuna.get_all_study_summaries(storage)
        if any(s.study_name != name for s in studies):
            raise UsageError(f"{out} holds a search for something else: choose another --out")
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            # A resumed search continues with a new seed instead of repeating its proposals.
            sampler=optuna.samplers.TPESampler(seed=sum(s.n_trials for s in studies), n_startup_trials=15),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=0),
        )


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn errors in writing the journal into a StoreError."""
    try:
        yield
    except (OSError, AssertionError) as error:  # optuna asserts that it could write the end of a trial
        reason = error if isinstance(error, OSError) else error.__context__
        if not isinstance(reason, OSError):
            raise
        raise StoreError(
            f"cannot write {out / 'trials.log'}: {reason.strerror}. Make room, then run the same command again"
        ) from error


def _refuse_foreign_journal(journal: Path) -> None:
    """Raise UsageError if the file that would be appended to is not one of optuna's, or the beginning of one."""
    held = read_file(journal)[: len(_JOURNAL)] if is_there(journal) else b""
    if not _JOURNAL.startswith(held):
        raise UsageError(f"--out: {journal} exists and is not of a search: choose another folder")


def _drop_half_line(journal: Path) -> None:
    """Remove an incomplete last line, left by a full disk or a kill; optuna would append to it."""
    data = journal.read_bytes() if journal.is_file() else b""
    if not data.endswith(b"\n"):
        write_atomic(journal, data[: data.rfind(b"\n") + 1])


def _ended(study: Any) -> int:
    """Return the number of trials that were finished or given up, not of those ended by Ctrl-C or an error."""
    return sum(t.state.name in ("COMPLETE", "PRUNED") for t in study.get_trials(deepcopy=False))


def _best_value(study: Any) -> float:
    values = [t.value for t in study.trials if t.state.name == "COMPLETE"]
    return max(values, default=float("nan"))
