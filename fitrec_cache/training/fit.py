"""The training loop for one head on features in memory, with validation. The tested head never sees a test clip."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fitrec_cache.common.devices import keep_to_cores, own_random_numbers, room_on, seed_random_numbers
from fitrec_cache.common.memory import keep_freed_memory
from fitrec_cache.common.precision import computes_in_bf16, in_full_float32
from fitrec_cache.common.progress import progress_bar
from fitrec_cache.errors import DivergedError
from fitrec_cache.heads.head import MeanHead, Normalisation, NormalisedHead, build_head
from fitrec_cache.settings.recipes import Recipe
from fitrec_cache.settings.variants import HeadConfig
from fitrec_cache.training.adamw import AdamW
from fitrec_cache.wording import some

#: Features with at most this many numbers are converted to float32 once; larger ones batch by batch.
_MOST_FLOATS = 250_000_000

#: The greatest number of values in all normalisations that are kept for reuse by heads trained on the same clips.
_MOST_KEPT = 50_000_000

#: Batch size in clips when not training, and in vectors when collecting them.
_EVALUATE, _VECTORS = 64, 8192

#: Number of steps that are timed, after one warm-up step.
_TIMED = 5

#: States of fitted :class:`~fitrec_cache.heads.head.Normalisation` modules, by kind, output length and clips.
Normalisations = dict[tuple[str, int, bytes], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained head, on the CPU, and its training history.

    Attributes:
        head: The head to be tested and used.
        judge: The head that was not trained on validation clips; the same as ``head`` unless the recipe refits.
        history: The judge's history, one dict per epoch: ``epoch``, ``train_loss``, ``val_loss``, ``train_accuracy``,
            ``val_accuracy``.
        best_epoch: The epoch whose weights were kept, from 1.
        seconds: Wall time of the training.
    """

    head: nn.Module
    judge: nn.Module
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """The clips of one side, as indices into arrays shared by all sides; copied only while a head is trained on them.

    Attributes:
        values: All clips: features ``(n, T, d)``, float16 or float32, or frames uint8 ``(n, T, 64, 64, 3)``.
        targets: Class numbers of all clips, int64 ``(n,)``.
        clips: Indices of the N clips of this side, int64 ``(N,)``.
        normalisations: Normalisations fitted to clips of these arrays, by kind, length and clips. Sides of the same
            arrays may share this dict: then the seeds of one split need only one fit.
    """

    values: NDArray[Any]
    targets: NDArray[np.int64]
    clips: NDArray[np.int64]
    normalisations: Normalisations = field(default_factory=dict)


def fit(
    train: Side,
    val: Side,
    *,
    config: HeadConfig,
    recipe: Recipe,
    seed: int,
    device: torch.device | str = "cpu",
    what: str = "",
    progress: bool = False,
) -> Fitted:
    """Train a head with validation; then, if the recipe refits, train a new one on both sides together.

    Args:
        train: The training clips.
        val: The validation clips, which with ``keep=best`` determine the epoch to keep; in the same arrays.
        config: The head.
        recipe: The training settings.
        seed: Seed of initial weights, batch order and dropout. On the CPU the same seed gives the same bits.
        device: The device to train on.
        what: Label of the progress bar.
        progress: Show the progress bar on standard error.

    Returns:
        The head and its history.

    Raises:
        DivergedError: If the loss becomes NaN or infinite and there is no epoch to keep: in the first epoch, or in any
            epoch if the recipe keeps the last one. Also if it does so while refitting, or if features are too large to
            be normalised.
    """
    started = time.perf_counter()
    recipe = with_precision(recipe.fitted_to(len(train.clips)), device, config.variant)
    where = torch.device(device)
    with _training(config, where), _epochs(recipe.epochs, what, progress) as bar:
        seed_random_numbers(seed, where)
        judge, loop = _begin(train, val, config, recipe, where)
        history, best_epoch = loop.run(bar)
    del loop  # frees the features that it holds
    head = judge
    if recipe.refit:
        both = dataclasses.replace(train, clips=np.concatenate([train.clips, val.clips]))
        what = f"{what} refit".strip()
        head = fit_again(both, recipe, best_epoch, config=config, seed=seed, device=where, what=what, progress=progress)
    return Fitted(
        head=head.cpu().eval(),
        judge=judge.cpu().eval(),
        history=history,
        best_epoch=best_epoch,
        seconds=time.perf_counter() - started,
    )


def fit_again(
    side: Side,
    recipe: Recipe,
    epochs: int,
    *,
    config: HeadConfig,
    seed: int,
    device: torch.device | str = "cpu",
    what: str = "",
    progress: bool = False,
) -> nn.Module:
    """Train a new head for a given number of epochs without validation, such as the final head on all clips.

    Args:
        side: The training clips.
        recipe: The settings with which the previous head was trained, including its precision; see :class:`Fitted`.
        epochs: Number of epochs.
        config: The head.
        seed: Seed of initial weights, batch order and dropout.
        device: The device to train on.
        what: Label of the progress bar.
        progress: Show the progress bar on standard error.

    Returns:
        The head, on the CPU, in evaluation mode.

    Raises:
        DivergedError: If the loss becomes NaN or infinite.
    """
    where = torch.device(device)
    with _training(config, where), _epochs(epochs, what, progress) as bar:
        seed_random_numbers(seed, where)
        head, loop = _begin(side, None, config, recipe, where)
        loop.repeat(epochs, bar)
    return head.cpu().eval()


def step_seconds(
    config: HeadConfig, recipe: Recipe, n_clips: int, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return how long one training step takes on the CPU, in seconds: the median of a few on random features.

    Features are normalised, or reduced to their principal components, once in a training: that is not in it.

    Args:
        config: The head; it must take features.
        recipe: The training settings.
        n_clips: Number of training clips; a step uses at most a batch of them.
        clock: Returns the time in seconds.
    """
    where, n = torch.device("cpu"), min(n_clips, recipe.batch_size)
    config = dataclasses.replace(
        config, input_dim=config.components or config.input_dim, normalise="none", components=0
    )
    values = np.random.default_rng(0).standard_normal((n, config.frames, config.input_dim), dtype=np.float32)
    side = Side(values=values, targets=np.arange(n) % config.n_classes, clips=np.arange(n))
    spent = []
    with _training(config, where):
        seed_random_numbers(0, where)
        _, loop = _begin(side, None, config, with_precision(recipe, where, config.variant), where)
        for _ in range(1 + _TIMED):
            started = clock()
            loop.learn(1)
            spent.append(clock() - started)
    return statistics.median(spent[1:])


def _epochs(total: int, what: str, show: bool) -> Any:
    """Return the progress bar of a training; it is shown before the features are prepared."""
    return progress_bar(total=total, unit="epoch", what=what, show=show, note="getting ready")


@contextlib.contextmanager
def _training(config: HeadConfig, device: torch.device) -> Iterator[None]:
    """Context for training: report lack of memory in plain words, and isolate the caller's random numbers and settings.

    Inside, gradients are on and float32 products keep all bits, whatever the caller has set.
    """
    keep_freed_memory()  # every step needs the same large blocks
    keep_to_cores()
    with (
        own_random_numbers(device),
        room_on(device, f"training {config.variant}"),
        torch.inference_mode(False),
        torch.enable_grad(),
        in_full_float32(device),
    ):
        yield


def with_precision(recipe: Recipe, device: torch.device | str, variant: str) -> Recipe:
    """Return the recipe with ``auto`` replaced by ``bf16``, if this processor is faster in it, or else by ``fp32``.

    The result is ``fp32`` wherever the setting has no effect: on other devices, and for ``mean``, which has hardly
    anything to multiply.

    Args:
        recipe: Any recipe.
        device: The device to train on.
        variant: The head's variant.
    """
    where = str(device)
    usable = where == "cpu" and variant != "mean"
    wanted = recipe.precision == "bf16" or (recipe.precision == "auto" and computes_in_bf16(where))
    return dataclasses.replace(recipe, precision="bf16" if usable and wanted else "fp32")


def _begin(
    train: Side, val: Side | None, config: HeadConfig, recipe: Recipe, device: torch.device
) -> tuple[nn.Module, _Loop]:
    """Return a new head and the loop that trains it, on features that are normalised once."""
    head = build_head(config)
    learner: nn.Module = head
    normalise: nn.Module | None = None
    if isinstance(head, NormalisedHead):
        _fit_normalisation(head.normalise, train)
        learner, normalise = head.head, head.normalise
    average = isinstance(learner, MeanHead) and not recipe.draw
    learner.to(device)
    learned = _hold(train, device, normalise, average=average)
    judged = None if val is None else _hold(val, device, normalise, average=average)
    return head, _Loop(learner, learned, judged, config.n_classes, recipe)


def _fit_normalisation(normalise: Normalisation, side: Side) -> None:
    """Fit a normalisation to the clips of a side, or reuse an earlier fit to the same clips."""
    known, key = side.normalisations, (normalise.kind, normalise.outputs, side.clips.tobytes())
    if key not in known:
        normalise.fit(_some_vectors(side))
        known[key] = _copy_state(normalise)
        while len(known) > 1 and sum(v.numel() for state in known.values() for v in state.values()) > _MOST_KEPT:
            known.pop(next(iter(known)))  # the oldest
    normalise.load_state_dict(known[key])


def _some_vectors(side: Side) -> Tensor:
    """Return frame vectors ``(M, d)`` of all clips, float32: every frame, or every n-th if there are too many."""
    steps = side.values.shape[1]
    n_vectors = len(side.clips) * steps
    step = math.ceil(n_vectors * side.values[0, 0].size / _MOST_FLOATS)
    while math.gcd(step, steps) > 1:  # otherwise it would pick the same positions in every clip
        step += 1
    places = np.arange(0, n_vectors, step)
    vectors = torch.empty(len(places), *side.values.shape[2:])
    for start in range(0, len(places), _VECTORS):
        clip, frame = np.divmod(places[start : start + _VECTORS], steps)
        vectors[start : start + _VECTORS] = torch.from_numpy(side.values[side.clips[clip], frame])
    return vectors


@dataclass(frozen=True, kw_only=True)
class _Held:
    """The clips on which a head is trained or validated: values ``(N, T, ...)`` and class numbers ``(N,)``."""

    values: Tensor
    targets: Tensor


@torch.no_grad()
def _hold(side: Side, device: torch.device, normalise: nn.Module | None, *, average: bool) -> _Held:
    """Return the clips of a side in memory as the head takes them: normalised once, and averaged if it averages.

    A head that always averages all frames gets the mean as each clip's only frame, ``(N, 1, d)``.
    """
    targets = torch.from_numpy(side.targets[side.clips])
    if normalise is None and not average:
        values = torch.from_numpy(side.values[side.clips])
        values = _inputs(values) if values.numel() <= _MOST_FLOATS else values
        return _Held(values=values.to(device), targets=targets.to(device))
    parts = []
    for batch in _batches(side.clips, _EVALUATE):
        values = torch.from_numpy(side.values[batch]).float()
        values = values if normalise is None else normalise(values)
        parts.append(values.mean(dim=1, keepdim=True) if average else values)
    return _Held(values=torch.cat(parts).to(device), targets=targets.to(device))


@torch.inference_mode()
def apply_head(
    head: nn.Module, values: NDArray[Any], clips: NDArray[np.int64], names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return logits ``(N, K)`` and attention ``(N, T)``, float32, for selected clips of ``values (n, T, ...)``.

    Args:
        head: A trained head, in evaluation mode.
        values: Features of n clips.
        clips: Indices of N of them.
        names: Ids of these N clips.

    Raises:
        DivergedError: If a logit is not finite.
    """
    with in_full_float32(torch.device("cpu")):
        parts = [head(_inputs(torch.from_numpy(values[batch]))) for batch in _batches(clips, _EVALUATE)]
    logits, attention = (torch.cat(part) for part in zip(*parts, strict=True))
    if bad := [names[i] for i in np.flatnonzero(~torch.isfinite(logits).all(dim=1).numpy()).tolist()]:
        raise DivergedError(
            f"the head's answer to {len(bad)} of {len(logits)} clips is no number: to {some(bad)}. Their features are "
            "far larger than those it learned from, or the training diverged (choose a smaller learning_rate)"
        )
    return logits, attention


def _batches(clips: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [clips[i : i + size] for i in range(0, len(clips), size)]


def _inputs(values: Tensor) -> Tensor:
    return values if values.dtype == torch.uint8 else values.float()


class _Loop:
    """One training run: epochs over the training side, each followed by a validation if there is a validation side."""

    def __init__(self, head: nn.Module, train: _Held, val: _Held | None, n_classes: int, recipe: Recipe) -> None:
        self.head, self.train, self.val, self.recipe = head, train, val, recipe
        trainable = [p for p in head.parameters() if p.requires_grad]
        self.optimiser = AdamW(trainable, weight_decay=recipe.weight_decay)
        self.weight = _class_weights(train.targets, n_classes, recipe.balance)

    def run(self, bar: Any) -> tuple[list[dict[str, float]], int]:
        """Train, and restore the weights of the epoch to keep; return the history and that epoch."""
        history: list[dict[str, float]] = []
        best_loss, best_epoch, best = float("inf"), 0, _copy_state(self.head)
        for epoch in range(1, self.recipe.epochs + 1):
            train_loss, train_accuracy = self.learn(epoch)
            val_loss, val_accuracy = self._look()
            if not math.isfinite(train_loss + val_loss):
                if self.recipe.keep == "last":  # its schedule must be completed
                    raise self._diverged()
                break
            entry = {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss}
            history.append(entry | {"train_accuracy": train_accuracy, "val_accuracy": val_accuracy})
            bar.set_postfix(val_loss=f"{val_loss:.3f}", val_acc=f"{val_accuracy:.3f}", refresh=False)
            bar.update()
            if self.recipe.keep == "last":
                best_epoch = epoch
            elif val_loss < best_loss:
                best_loss, best_epoch, best = val_loss, epoch, _copy_state(self.head)
            elif epoch - best_epoch >= self.recipe.patience:
                break
        if best_epoch == 0:
            raise self._diverged()
        if self.recipe.keep != "last":
            self.head.load_state_dict(best)
        return history, best_epoch

    def repeat(self, epochs: int, bar: Any) -> None:
        """Train for the first ``epochs`` epochs of the schedule, without validation."""
        for epoch in range(1, epochs + 1):
            loss, _ = self.learn(epoch)
            if not math.isfinite(loss):
                raise self._diverged()
            bar.set_postfix_str("", refresh=False)
            bar.update()

    def _diverged(self) -> DivergedError:
        return DivergedError(
            f"training diverged: the loss was not a number (learning_rate {self.recipe.learning_rate}); "
            "choose a smaller one"
        )

    def learn(self, epoch: int) -> tuple[float, float]:
        """Train on every clip once, in random order; return the mean loss and the accuracy during the epoch."""
        self.head.train()
        learning_rate = self._learning_rate(epoch)
        n = len(self.train.targets)
        device = self.train.targets.device
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        for batch in torch.split(torch.randperm(n).to(device), self.recipe.batch_size):
            targets = self.train.targets[batch]  # (B,)
            in_bf16 = self.recipe.precision == "bf16"
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16, cache_enabled=False):  # a cache would go stale
                logits, _ = self.head(self._draw(_inputs(self.train.values[batch])))  # (B, K)
                loss = self._loss(logits, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step(learning_rate)
            loss_sum += loss.detach() * len(batch)
            correct += (logits.argmax(dim=1) == targets).sum()
        return float(loss_sum) / n, float(correct) / n

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, with each clip weighted by its own class.

        PyTorch's own class weights would also weight the classes over which label smoothing spreads a target, rare ones
        most, and would have no effect in a batch of a single class.
        """
        smoothing = self.recipe.label_smoothing
        if self.weight is None:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing)
        losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")  # (B,)
        return (losses * self.weight[targets]).mean()

    def _learning_rate(self, epoch: int) -> float:
        if self.recipe.schedule == "constant":
            return self.recipe.learning_rate
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / self.recipe.epochs))

    def _draw(self, x: Tensor) -> Tensor:
        """Return ``draw`` random frames of each clip, in order: ``(B, T, ...)`` -> ``(B, draw, ...)``."""
        if not 0 < self.recipe.draw < x.shape[1]:
            return x
        chosen = torch.rand(x.shape[:2]).argsort(dim=1)[:, : self.recipe.draw].sort(dim=1).values  # (B, draw)
        return x[torch.arange(len(x))[:, None], chosen.to(x.device)]

    @torch.inference_mode()
    def _look(self) -> tuple[float, float]:
        assert self.val is not None
        self.head.eval()
        logits = torch.cat([self.head(_inputs(v))[0] for v in torch.split(self.val.values, _EVALUATE)])  # (N, K)
        targets = self.val.targets
        loss = F.cross_entropy(logits, targets)
        return float(loss), float((logits.argmax(dim=1) == targets).float().mean())


def _class_weights(targets: Tensor, n_classes: int, power: float) -> Tensor | None:
    """Return the weight of each class in the loss, 1 on average over the clips; None if all are equal."""
    if not power:
        return None
    counts = torch.bincount(targets, minlength=n_classes).clamp(min=1).float()  # (K,)
    weights = counts**-power
    return weights / weights[targets].mean()


def _copy_state(head: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in head.state_dict().items()}
