"""Train, calibrate, test and write the heads of one call, in this process or in several."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fitrec_cache import __version__
from fitrec_cache.common.progress import progress_bar, timed
from fitrec_cache.dataset.clips import SIDES
from fitrec_cache.dataset.folds import Fold
from fitrec_cache.dataset.splits import Split
from fitrec_cache.dataset.units import validation_units
from fitrec_cache.evaluation.calibration import calibrate
from fitrec_cache.features import Features
from fitrec_cache.heads.head import count_trainable
from fitrec_cache.runs.models import COLUMN
from fitrec_cache.runs.outputs import Outputs, to_bytes
from fitrec_cache.runs.results import RunResult, result_of
from fitrec_cache.runs.run import State, add_final, check_out, write_run
from fitrec_cache.runs.scored import ScoredRun
from fitrec_cache.settings.recipes import Recipe
from fitrec_cache.settings.variants import HeadConfig
from fitrec_cache.training.fit import Fitted, Normalisations, Side, apply_head, fit, fit_again
from fitrec_cache.video.spans import short_content


@dataclass(frozen=True, eq=False)
class Job:
    """One head to train: its fold, seed and folder, whether to train a final head too, and any existing run."""

    fold: Fold
    seed: int
    folder: Path
    final: bool
    state: State = "missing"
    there: RunResult | None = None


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the heads of one call; holds the settings that all its runs share."""

    out: Path
    data: Features
    strangers: Features | None
    variant: str
    attention: str | None
    recipe: Recipe
    recipe_name: str
    false_alarm_rate: float
    device: torch.device
    data_sha256: str
    column_sha256: str
    split_seed: int | None
    some_classes: bool
    overwrite: bool
    progress: bool
    normalisations: Normalisations = field(default_factory=dict)

    def run_all(self, jobs: Sequence[Job], at_once: int, stages: dict[str, float]) -> list[RunResult]:
        """Train all heads, up to ``at_once`` of them in parallel processes; see ``jobs`` of ``train_head``."""
        processes = min(len(jobs), at_once)
        if processes < 2:
            places = [f"({i} of {len(jobs)})" if len(jobs) > 1 else "" for i in range(1, len(jobs) + 1)]
            return [self.run(job, stages, place) for job, place in zip(jobs, places, strict=True)]
        from fitrec_cache.common.processes import map_in_processes  # imported here because only this needs pebble

        alike = replace(self, data=replace(self.data), progress=False)  # without the near-duplicates found before
        beside = jobs[:-1] if len(jobs) % processes == 1 else jobs  # a job left over runs here, with all cores
        bar = progress_bar(total=len(beside), unit="head", what=self.variant, show=self.progress)
        with timed(stages, "train"), bar:
            found = map_in_processes(
                _run_one,
                alike,
                beside,
                processes=processes,
                threads=max(1, torch.get_num_threads() // processes),
                advance=bar.update,
            )
        return [*found, *(self.run(job, stages) for job in jobs[len(beside) :])]

    def run(self, job: Job, stages: dict[str, float], place: str = "") -> RunResult:
        """Train, calibrate, test and write one head; if the run exists and lacks only the final head, train just that.

        ``place`` is shown in the progress bar: the number of this head among all.
        """
        what = " ".join(part for part in (self.variant, f"seed {job.seed}", job.fold.name, place) if part)
        if (done := job.there) is not None:
            with timed(stages, "train"):
                final = self._fit_final(job, done.best_epoch, what)
            with timed(stages, "write"):
                self._refuse_another(job)
                add_final(job.folder, final)
            return done
        with timed(stages, "train"):
            split = job.fold.split
            train, val = self._side(job, split.train), self._side(job, split.val)
            fitted = fit(train, val, recipe=self.recipe, what=what, **self._common(job))
            also = self._fit_final(job, fitted.best_epoch, what) if job.final else None
        with timed(stages, "write"):
            return self._judge(job, fitted, also)

    def _fit_final(self, job: Job, epochs: int, what: str) -> nn.Module:
        """Train a head on the clips of all sides, for as many epochs as the tested one."""
        everything = self._side(job, np.concatenate(job.fold.split.sides))
        recipe = self.recipe.fitted_to(len(job.fold.split.train))
        return fit_again(everything, recipe, epochs, what=f"{what} final", **self._common(job))

    def _side(self, job: Job, clips: NDArray[np.int64]) -> Side:
        _, targets = self.classes(job)
        return Side(values=self.data.values, targets=targets, clips=clips, normalisations=self.normalisations)

    def _common(self, job: Job) -> dict[str, Any]:
        """Return what every training of this job's heads needs."""
        return {"config": self.config(job), "seed": job.seed, "device": self.device, "progress": self.progress}

    def _judge(self, job: Job, fitted: Fitted, final: nn.Module | None) -> RunResult:
        """Calibrate, test and write a head."""
        data, split, (labels, targets) = self.data, job.fold.split, self.classes(job)
        described = self.describe(job) | {"val_groups": [data.groups[i] for i in split.val]}

        def said_by(head: nn.Module, side: str) -> Outputs:
            clips = getattr(split, side)
            logits, attention = apply_head(head, data.values, clips, described["split"][side])
            return Outputs(logits=logits.numpy(), targets=targets[clips], attention=attention.numpy())

        validated, tested, strange = said_by(fitted.judge, "val"), said_by(fitted.head, "test"), None
        units = validation_units(described)
        calibration = calibrate(
            validated.logits, validated.targets, units=units, false_alarm_rate=self.false_alarm_rate
        )
        if (others := self.strangers) is not None:
            everyone = np.arange(len(others.clip_ids))
            strange = apply_head(fitted.head, others.values, everyone, others.clip_ids)[0].numpy()
        run = described | self.contents(job) | {"calibration": calibration.to_dict(), "versions": _versions()}
        result = result_of(
            ScoredRun(folder=job.folder, run_json=run, validated=validated, tested=tested),
            strange,
            epochs=len(fitted.history),
            best_epoch=fitted.best_epoch,
            parameters=count_trainable(fitted.head),
            seconds=fitted.seconds,
        )
        run |= {"threads": torch.get_num_threads(), "clip_seconds": data.clip_seconds()}
        run |= {"without_group": self._without_group(split)}
        run |= {"some_classes": sorted(set(data.labels))} if self.some_classes else {}
        run |= {COLUMN: self.column_sha256} if self.column_sha256 else {}
        metrics = {**result.to_dict(), **result.metrics.to_dict(), "calibration": result.calibration}
        metrics |= {"labels": labels, "history": fitted.history}
        metrics.pop("out")
        self._refuse_another(job)
        outputs = to_bytes(validated, tested, strange)
        write_run(job.folder, head=fitted.head, final=final, run=run, metrics=metrics, outputs=outputs, out=self.out)
        return result

    def _refuse_another(self, job: Job) -> None:
        """Raise UsageError if another call with different settings has finished a run in this folder meanwhile."""
        if not self.overwrite and (job.folder / "run.json").exists():
            check_out(job.folder, self.describe(job), overwrite=False)

    def classes(self, job: Job) -> tuple[list[str], NDArray[np.int64]]:
        """Return the class names of the head, and the class number of each clip."""
        return job.fold.split.classes(self.data.labels)

    def config(self, job: Job) -> HeadConfig:
        """Return the configuration of this job's head."""
        return self.recipe.head_config(
            self.variant,
            self.data.values.shape,
            n_classes=len(self.classes(job)[0]),
            n_train=len(job.fold.split.train),
            attention=self.attention,
            pose_dim=self.data.pose_dim,
        )

    def describe(self, job: Job) -> dict[str, Any]:
        """Return all settings that define the run, as they are written to ``run.json``."""
        data, split = self.data, job.fold.split
        sides = {name: [data.clip_ids[i] for i in getattr(split, name)] for name in SIDES}
        alone = self._without_group(split)
        training = self.recipe.to_dict() | {"optimiser": "AdamW", "loss": "cross-entropy", "device": str(self.device)}
        return {
            "head": self.config(job).to_dict(),
            "labels": self.classes(job)[0],
            "recipe": self.recipe_name,
            "training": training,
            "false_alarm_rate": self.false_alarm_rate,
            "final": job.final,
            "seed": job.seed,
            "fold": job.fold.name,
            "split": {
                "rule": split.rule,
                **({} if self.split_seed is None else {"seed": self.split_seed}),
                **({"without_group": alone} if split.rule == "group" and alone else {}),
                "notes": list(split.notes),
                "sharing": split.sharing,
                "untrained": list(split.untrained),
                **sides,
                "test_groups": [data.groups[i] for i in split.test],
                "unknown": [] if self.strangers is None else self.strangers.clip_ids,
                "unknown_classes": [] if self.strangers is None else sorted(set(self.strangers.labels)),
            },
            "data_sha256": self.data_sha256,
            **({} if self.strangers is None else {"unknown_sha256": self.strangers.digest()}),
            "sources": data.sources,
            "backbone": data.name,
        }

    def _without_group(self, split: Split) -> int:
        """Return how many clips of all sides have no group."""
        return sum(self.data.groups[i] is None for side in split.sides for i in side.tolist())

    def contents(self, job: Job) -> dict[str, dict[str, list[str]]]:
        """Return the content identifiers of the videos of each side, as in ``run.json``; empty if they are unknown."""
        if not (known := self.data.contents):
            return {}
        return {"contents": {name: [short_content(known[i]) for i in getattr(job.fold.split, name)] for name in SIDES}}


def _run_one(trainer: Trainer, job: Job) -> RunResult:
    """Train one head in a worker process."""
    return trainer.run(job, {})


def _versions() -> dict[str, str]:
    return {
        "fitrec-cache": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
