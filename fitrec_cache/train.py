"""Stage two: train a head on cached features. Nothing here knows video: neither PyAV nor timm is loaded."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fitrec_cache import __version__
from fitrec_cache.cache import Cache
from fitrec_cache.errors import UsageError, unknown_name
from fitrec_cache.head import VARIANTS, HeadConfig, build_head, count_trainable
from fitrec_cache.metrics import Metrics, evaluate
from fitrec_cache.pack import Features, load_cached, read_pack
from fitrec_cache.pixels import load_pixels
from fitrec_cache.progress import progress_bar
from fitrec_cache.runs import check_out, run_folders, write_run
from fitrec_cache.splits import Split, leakage, make_split


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a head is trained; the defaults are the paper's where it gives any.

    Attributes:
        epochs: At most this many.
        patience: Stop after this many epochs without a lower validation loss; the best epoch's weights are kept.
        learning_rate: Of Adam.
        batch_size: Clips per step.
    """

    epochs: int = 200
    patience: int = 20
    learning_rate: float = 1e-4
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if not 0 < self.learning_rate < 10:
            raise UsageError(f"learning_rate is {self.learning_rate}: expected a positive number, such as 1e-4")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One trained head: where it is, how it was made, and its figures on the test side."""

    out: Path
    variant: str
    backbone: str
    split: str
    seed: int
    n_train: int
    n_val: int
    n_test: int
    epochs: int
    best_epoch: int
    parameters: int
    seconds: float
    metrics: Metrics

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values, without the per-class tables (they are in ``metrics.json``)."""
        figures = self.metrics.to_dict()
        plain = {k: v for k, v in vars(self).items() if k not in ("out", "metrics", "seconds")}
        left_out = ("n", "per_class", "confusion")
        return {
            **plain,
            "seconds": round(self.seconds, 3),
            "out": str(self.out),
            **{k: v for k, v in figures.items() if k not in left_out},
        }


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What :func:`train_head` did: one run a seed, and what a person should know."""

    runs: tuple[RunResult, ...]
    notes: tuple[str, ...]
    stages: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        accuracies = [r.metrics.accuracy for r in self.runs]
        return {
            "runs": [r.to_dict() for r in self.runs],
            "accuracy_mean": float(np.mean(accuracies)),
            "accuracy_std": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0,
            "notes": list(self.notes),
            "stages": {name: round(s, 3) for name, s in self.stages.items()},
        }


def train_head(
    *,
    out: Path,
    cache: Path | None = None,
    features: Path | None = None,
    variant: str = "resnet50-lstm-attention",
    backbone: Sequence[str] = (),
    preset: str | None = None,
    split: str = "auto",
    seed: Sequence[int] = (0,),
    attention: str | None = None,
    epochs: int = TrainSettings.epochs,
    patience: int = TrainSettings.patience,
    learning_rate: float = TrainSettings.learning_rate,
    batch_size: int = TrainSettings.batch_size,
    device: str = "cpu",
    overwrite: bool = False,
    progress: bool = False,
) -> TrainReport:
    """Train one head per seed on cached features, and test each once.

    Adam, cross-entropy, early stopping on validation loss, best weights restored. The test side is looked at only
    after that.

    Args:
        out: Run folder; with several seeds it holds one run folder a seed.
        cache: Cache folder that ``extract`` made; this or ``features``.
        features: One HDF5 file of features, from ``pack`` or made elsewhere.
        variant: A key of :data:`fitrec_cache.head.VARIANTS`.
        backbone: Which cached features; several are put side by side. Empty: the variant's own.
        preset: ``native``, ``paper`` or ``table1``, where the cache holds several.
        split: ``auto`` (``group`` where groups are known), ``group``, ``random``, ``official1`` to ``official3``, or
            ``list:TRAIN,TEST``, or ``manifest`` (its column ``split``: train, test and, if given, val).
        seed: Seeds of split, initial values and order of batches; one run each.
        attention: ``additive`` (Eq. 9), ``dot`` or ``none``; None for the variant's own.
        epochs: At most this many.
        patience: Stop after this many epochs without a lower validation loss.
        learning_rate: Of Adam.
        batch_size: Clips per step.
        device: ``cpu``, ``cuda``, ...: where the head is trained. On the CPU a seed gives the same bits every time.
        overwrite: Replace a run that is there.
        progress: Show a progress bar on standard error.

    Returns:
        One result a seed.

    Raises:
        UsageError: For wrong arguments, or data that cannot be split so.
        StoreError: If the cache cannot be read or a run cannot be written.
    """
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    settings = TrainSettings(epochs=epochs, patience=patience, learning_rate=learning_rate, batch_size=batch_size)
    if min(seed, default=0) < 0:
        raise UsageError(f"seed {min(seed)}: expected 0 or more")
    repeated = sorted({b for b in backbone if backbone.count(b) > 1})
    if repeated:
        raise UsageError(f"backbone {repeated[0]} is named twice: name each once")
    where = _device(device)
    folders = run_folders(out, seed)
    for folder in folders:
        check_out(folder, overwrite=overwrite)
    started = time.perf_counter()
    data = _load(cache, features, variant, backbone, preset, progress=progress)
    stages = {"load": time.perf_counter() - started, "train": 0.0, "write": 0.0}
    runs, notes = [], list(data.notes)
    for folder, number in zip(folders, seed, strict=True):
        sides = _sides(data, split, number)
        job = _Job(data, sides, variant, attention, settings, where)
        fitted = job.fit(progress=progress)
        stages["train"] += fitted.seconds
        begun = time.perf_counter()
        result = _keep(folder, job, fitted)
        stages["write"] += time.perf_counter() - begun
        runs.append(result)
        notes += [f"seed {number}: {n}" for n in sides.notes] if len(seed) > 1 else sides.notes
    return TrainReport(runs=tuple(runs), notes=tuple(notes), stages=stages)


def _load(
    cache: Path | None,
    features: Path | None,
    variant: str,
    backbone: Sequence[str],
    preset: str | None,
    *,
    progress: bool,
) -> Features:
    if (cache is None) == (features is None):
        raise UsageError("give either --cache DIR or --features FILE")
    pixels = VARIANTS[variant].takes_pixels
    if features is not None:
        if pixels or backbone or preset:
            why = f"variant {variant} learns from frames" if pixels else "--backbone and --preset choose from a cache"
            raise UsageError(f"--features FILE holds one set of features: {why}; use --cache DIR")
        return read_pack(features)
    opened = Cache(Path(str(cache)))
    if pixels:
        if backbone or preset:
            raise UsageError(f"variant {variant} learns from the frame store: leave --backbone and --preset out")
        return load_pixels(opened, progress=progress)
    return _load_backbones(opened, VARIANTS[variant].backbone, backbone, preset)


def _sides(data: Features, rule: str, seed: int) -> Split:
    clips = {"clip_ids": data.clip_ids, "labels": data.labels, "groups": data.groups}
    if rule != "manifest":
        return make_split(rule, **clips, seed=seed)  # type: ignore[arg-type]
    column = [extra.get("split", "") for extra in data.extra]
    unknown = sorted(set(column) - {"train", "val", "test", ""})
    if unknown or "test" not in column:
        raise UsageError(
            f"--split manifest reads the manifest's column split: got {unknown or sorted(set(column))}, "
            "expected train, test and, if you like, val"
        )
    if "val" not in column:
        named = [[c for c, s in zip(data.clip_ids, column, strict=True) if s == side] for side in ("train", "test")]
        carved = make_split("list:manifest,manifest", **clips, seed=seed, lists=(named[0], named[1]))  # type: ignore[arg-type]
        return replace(carved, rule=rule)
    if "train" not in column:
        raise UsageError("--split manifest: no clip of the manifest's column split is train")
    train, val, test = (
        np.array([i for i, s in enumerate(column) if s == side], dtype=np.int64) for side in ("train", "val", "test")
    )
    split = Split(rule=rule, seed=seed, train=train, val=val, test=test, notes=())
    leaks = leakage(split, data.groups)
    return replace(split, notes=(f"leaks: {leaks} test clips share a group with a training clip",) * bool(leaks))


def _load_backbones(cache: Cache, default: str, wanted: Sequence[str], preset: str | None) -> Features:
    """Load what was asked for; if nothing was, the variant's own backbone, or the only one that is cached."""
    cached = {s.identity["backbone"] for s in cache.feature_stores() if len(s)}
    if wanted or default in cached or len(cached) != 1:
        return load_cached(cache, wanted or (default,), preset=preset)
    only = cached.pop()
    found = load_cached(cache, (only,), preset=preset)
    found.notes.append(f"features of {default}, this variant's own, are not cached: {only} is used")
    return found


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}. Try cpu") from error
    return device


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    head: nn.Module
    config: HeadConfig
    history: list[dict[str, float]]
    best_epoch: int
    metrics: Metrics
    seconds: float


class _Job:
    """One seed's training: everything stays in memory, there are no loader processes."""

    def __init__(
        self,
        data: Features,
        split: Split,
        variant: str,
        attention: str | None,
        settings: TrainSettings,
        device: torch.device,
    ) -> None:
        self.data, self.split, self.settings, self.device = data, split, settings, device
        self.class_names = sorted(set(data.labels))
        index = {name: i for i, name in enumerate(self.class_names)}
        self.targets = torch.tensor([index[label] for label in data.labels], device=device)
        self.values = torch.from_numpy(np.ascontiguousarray(data.values)).to(device)
        pixels = VARIANTS[variant].takes_pixels
        self.config = HeadConfig(
            variant=variant,
            n_classes=len(self.class_names),
            input_dim=0 if pixels else data.values.shape[2],
            attention=attention,
            frames=data.values.shape[1],
        )

    def fit(self, *, progress: bool) -> _Fitted:
        """Train with early stopping, then test once."""
        started = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.split.seed)
            head = build_head(self.config).to(self.device)
            history, best_epoch = self._epochs(head, progress=progress)
        logits = self._logits(head, self.split.test)
        truth = self.targets[torch.from_numpy(self.split.test)].cpu().numpy()
        metrics = evaluate(logits.cpu().numpy(), truth, self.class_names)
        return _Fitted(
            head=head.cpu(),
            config=self.config,
            history=history,
            best_epoch=best_epoch,
            metrics=metrics,
            seconds=time.perf_counter() - started,
        )

    def _epochs(self, head: nn.Module, *, progress: bool) -> tuple[list[dict[str, float]], int]:
        trainable = [p for p in head.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(trainable, lr=self.settings.learning_rate)
        history: list[dict[str, float]] = []
        best_loss, best_epoch, best = float("inf"), 0, _copy_state(head)
        label = f"{self.config.variant} seed {self.split.seed}"
        with progress_bar(total=self.settings.epochs, unit="epoch", what=label, show=progress) as bar:
            for epoch in range(1, self.settings.epochs + 1):
                train_loss, train_accuracy = self._epoch(head, optimiser)
                val_loss, val_accuracy = self._validate(head)
                if not math.isfinite(train_loss + val_loss):
                    break
                history.append(
                    {
                        "epoch": epoch,
                        "train_loss": train_loss,
                        "val_loss": val_loss,
                        "train_accuracy": train_accuracy,
                        "val_accuracy": val_accuracy,
                    }
                )
                bar.set_postfix(val_loss=f"{val_loss:.3f}", val_acc=f"{val_accuracy:.3f}", refresh=False)
                bar.update()
                if val_loss < best_loss:
                    best_loss, best_epoch, best = val_loss, epoch, _copy_state(head)
                elif epoch - best_epoch >= self.settings.patience:
                    break
        if best_epoch == 0:
            raise UsageError(
                f"training diverged: validation loss was never a number (learning_rate {self.settings.learning_rate}); "
                "choose a smaller one"
            )
        head.load_state_dict(best)
        return history, best_epoch

    def _epoch(self, head: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[float, float]:
        """Take every training clip once, in random order; return mean loss and accuracy on the way."""
        head.train()
        order = torch.from_numpy(self.split.train)[torch.randperm(len(self.split.train))].to(self.device)
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        for batch in torch.split(order, self.settings.batch_size):
            logits, _ = head(self._inputs(batch))  # (B, K)
            loss = F.cross_entropy(logits, self.targets[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            loss_sum += loss.detach() * len(batch)
            correct += (logits.argmax(dim=1) == self.targets[batch]).sum()
        return float(loss_sum) / len(order), float(correct) / len(order)

    def _validate(self, head: nn.Module) -> tuple[float, float]:
        logits = self._logits(head, self.split.val)
        truth = self.targets[torch.from_numpy(self.split.val).to(self.device)]
        loss = F.cross_entropy(logits, truth)
        return float(loss), float((logits.argmax(dim=1) == truth).float().mean())

    @torch.inference_mode()
    def _logits(self, head: nn.Module, clips: NDArray[np.int64]) -> Tensor:
        head.eval()
        indices = torch.from_numpy(clips).to(self.device)
        return torch.cat(
            [head(self._inputs(batch))[0] for batch in torch.split(indices, self.settings.batch_size)]
        )  # (N, K)

    def _inputs(self, batch: Tensor) -> Tensor:
        x = self.values[batch]  # (B, T, d), or (B, T, 64, 64, 3) uint8
        return x if x.dtype == torch.uint8 else x.float()


def _copy_state(head: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in head.state_dict().items()}


def _keep(folder: Path, job: _Job, fitted: _Fitted) -> RunResult:
    data, split = job.data, job.split
    result = RunResult(
        out=folder,
        variant=fitted.config.variant,
        backbone=data.name,
        split=split.rule,
        seed=split.seed,
        n_train=len(split.train),
        n_val=len(split.val),
        n_test=len(split.test),
        epochs=len(fitted.history),
        best_epoch=fitted.best_epoch,
        parameters=count_trainable(fitted.head),
        seconds=fitted.seconds,
        metrics=fitted.metrics,
    )
    sides = {name: [data.clip_ids[i] for i in getattr(split, name)] for name in ("train", "val", "test")}
    run = {
        "head": fitted.config.to_dict(),
        "labels": job.class_names,
        "training": vars(job.settings) | {"optimiser": "Adam", "loss": "cross-entropy", "device": str(job.device)},
        "seed": split.seed,
        "split": {"rule": split.rule, "notes": list(split.notes), **sides},
        "sources": data.sources,
        "backbone": data.name,
        "versions": {
            "fitrec-cache": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    metrics = {**result.to_dict(), **fitted.metrics.to_dict(), "labels": job.class_names, "history": fitted.history}
    metrics.pop("out")
    write_run(folder, head=fitted.head, run=run, metrics=metrics)
    return result
