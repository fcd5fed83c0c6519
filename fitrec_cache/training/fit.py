"""Train one head on features in memory, with validation. The tested head never sees a test clip."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fitrec_cache.common.devices import keep_to_cores, own_random_numbers, room_on, seed_random_numbers
from fitrec_cache.common.memory import keep_freed_memory
from fitrec_cache.common.precision import computes_in_bf16, in_full_float32
from fitrec_cache.common.progress import progress_bar
from fitrec_cache.errors import DivergedError
from fitrec_cache.heads.head import MeanHead, NormalisedHead, build_head
from fitrec_cache.heads.normalisation import Normalisation, PosesApart
from fitrec_cache.settings.recipes import Recipe
from fitrec_cache.settings.variants import HeadConfig
from fitrec_cache.training.loop import EVALUATE, Held, Loop, as_inputs, copy_state
from fitrec_cache.wording import some

#: Features with at most this many numbers are converted to float32 once; larger ones batch by batch.
_MOST_FLOATS = 250_000_000

#: The greatest number of values in all normalisations that are kept for reuse by heads trained on the same clips.
_MOST_KEPT = 50_000_000

#: Batch size in vectors when collecting them.
_VECTORS = 8192

#: Number of steps that are timed, after one warm-up step.
_TIMED = 5

#: States of fitted modules of :mod:`fitrec_cache.heads.normalisation`, by kind, output length and clips.
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
        seed: Seed of initial weights, batch order and dropout. On the CPU the same seed and number of threads give
            the same bits.
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

    ``recipe`` has the settings with which the previous head was trained, including its precision (see :class:`Fitted`);
    the other arguments are those of :func:`fit`.

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


def step_seconds(config: HeadConfig, recipe: Recipe, n_clips: int) -> float:
    """Return how long one training step takes on the CPU, in seconds: the median of a few on random features.

    Features are normalised, or reduced to their principal components, once in a training: that is not in it.

    Args:
        config: The head; it must take features.
        recipe: The training settings.
        n_clips: Number of training clips; a step uses at most a batch of them.
    """
    where, n = torch.device("cpu"), min(n_clips, recipe.batch_size)
    config = dataclasses.replace(config, input_dim=config.seen_dim, normalise="none", components=0, pose_dim=0)
    values = np.random.default_rng(0).standard_normal((n, config.frames, config.input_dim), dtype=np.float32)
    side = Side(values=values, targets=np.arange(n) % config.n_classes, clips=np.arange(n))
    spent = []
    with _training(config, where):
        seed_random_numbers(0, where)
        _, loop = _begin(side, None, config, with_precision(recipe, where, config.variant), where)
        for _ in range(1 + _TIMED):
            started = time.perf_counter()
            loop.learn(1)
            spent.append(time.perf_counter() - started)
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
    """
    where = str(device)
    usable = where == "cpu" and variant != "mean"
    wanted = recipe.precision == "bf16" or (recipe.precision == "auto" and computes_in_bf16(where))
    return dataclasses.replace(recipe, precision="bf16" if usable and wanted else "fp32")


def _begin(
    train: Side, val: Side | None, config: HeadConfig, recipe: Recipe, device: torch.device
) -> tuple[nn.Module, Loop]:
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
    return head, Loop(learner, learned, judged, config.n_classes, recipe)


def _fit_normalisation(normalise: Normalisation | PosesApart, side: Side) -> None:
    """Fit a normalisation to the clips of a side, or reuse an earlier fit to the same clips."""
    known, key = side.normalisations, (normalise.kind, normalise.outputs, side.clips.tobytes())
    if key not in known:
        normalise.fit(_some_vectors(side))
        if isinstance(normalise, PosesApart):
            poses = side.values[side.clips, :, -normalise.poses.inputs :]
            normalise.fit_variation(torch.from_numpy(poses).float())
        known[key] = copy_state(normalise)
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


@torch.no_grad()
def _hold(side: Side, device: torch.device, normalise: nn.Module | None, *, average: bool) -> Held:
    """Return the clips of a side in memory as the head takes them: normalised once, and averaged if it averages.

    A head that always averages all frames gets the mean as each clip's only frame, ``(N, 1, d)``.
    """
    targets = torch.from_numpy(side.targets[side.clips])
    if normalise is None and not average:
        values = torch.from_numpy(side.values[side.clips])
        values = as_inputs(values) if values.numel() <= _MOST_FLOATS else values
        return Held(values=values.to(device), targets=targets.to(device))
    parts = []
    for batch in _batches(side.clips, EVALUATE):
        values = torch.from_numpy(side.values[batch]).float()
        values = values if normalise is None else normalise(values)
        parts.append(values.mean(dim=1, keepdim=True) if average else values)
    return Held(values=torch.cat(parts).to(device), targets=targets.to(device))


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
        parts = [head(as_inputs(torch.from_numpy(values[batch]))) for batch in _batches(clips, EVALUATE)]
    logits, attention = (torch.cat(part) for part in zip(*parts, strict=True))
    if bad := [names[i] for i in np.flatnonzero(~torch.isfinite(logits).all(dim=1).numpy()).tolist()]:
        raise DivergedError(
            f"the head's answer to {len(bad)} of {len(logits)} clips is no number: to {some(bad)}. Their features are "
            "far larger than those it learned from, or the training diverged (choose a smaller learning_rate)"
        )
    return logits, attention


def _batches(clips: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [clips[i : i + size] for i in range(0, len(clips), size)]
