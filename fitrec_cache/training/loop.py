"""The training loop: epochs over clips in memory, each followed by a look at the validation clips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fitrec_cache.errors import DivergedError
from fitrec_cache.settings.recipes import Recipe
from fitrec_cache.training.adamw import AdamW

#: Batch size in clips when not training.
EVALUATE = 64


@dataclass(frozen=True, kw_only=True)
class Held:
    """The clips on which a head is trained or validated: values ``(N, T, ...)`` and class numbers ``(N,)``."""

    values: Tensor
    targets: Tensor


class Loop:
    """One training run: epochs over the training side, each followed by a validation if there is a validation side."""

    def __init__(self, head: nn.Module, train: Held, val: Held | None, n_classes: int, recipe: Recipe) -> None:
        self.head, self.train, self.val, self.recipe = head, train, val, recipe
        trainable = [p for p in head.parameters() if p.requires_grad]
        self.optimiser = AdamW(trainable, weight_decay=recipe.weight_decay)
        self.weight = _class_weights(train.targets, n_classes, recipe.balance)

    def run(self, bar: Any) -> tuple[list[dict[str, float]], int]:
        """Train, and restore the weights of the epoch to keep; return the history and that epoch."""
        history: list[dict[str, float]] = []
        best_loss, best_epoch, best = float("inf"), 0, copy_state(self.head)
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
                best_loss, best_epoch, best = val_loss, epoch, copy_state(self.head)
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
                logits, _ = self.head(self._draw(as_inputs(self.train.values[batch])))  # (B, K)
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
        logits = torch.cat([self.head(as_inputs(v))[0] for v in torch.split(self.val.values, EVALUATE)])  # (N, K)
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


def as_inputs(values: Tensor) -> Tensor:
    """Return values as a head takes them: features as float32, frames as they are."""
    return values if values.dtype == torch.uint8 else values.float()


def copy_state(head: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's parameters and buffers."""
    return {name: value.detach().clone() for name, value in head.state_dict().items()}
