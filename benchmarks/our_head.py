"""The paper's ResNet50 head by this program, on the arrays of keras_head.py.

    python benchmarks/our_head.py ARRAYS.npz --epochs 5 --seed 0

Prints one JSON object: seconds of each epoch, test accuracy, a digest of the trained weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch

from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.training import fit as fitting
from fitrec_cache.training.fit import Side, apply_head, fit


class TimedLoop(fitting.Loop):
    """An epoch is all training clips once and all validation clips after them, as Keras counts it."""

    seconds: list[float] = []  # noqa: RUF012 - one training a process

    def learn(self, epoch: int) -> tuple[float, float]:
        self.started = time.perf_counter()
        return super().learn(epoch)

    def _look(self) -> tuple[float, float]:
        found = super()._look()
        self.seconds.append(time.perf_counter() - self.started)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--precision", help="the recipe's by default")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    arrays = dict(np.load(args.arrays))
    values, targets = (np.concatenate([arrays[f"{side}_{what}"] for side in ("train", "val")]) for what in "xy")
    sides = np.split(np.arange(len(targets)), [len(arrays["train_y"])])
    train, val = (Side(values=values, targets=targets, clips=clips) for clips in sides)
    recipe = (
        get_recipe(args.recipe)
        .change(epochs=args.epochs, patience=args.epochs, learning_rate=args.learning_rate, batch_size=32)
        .change(precision=args.precision)
    )
    config = recipe.head_config(
        "resnet50-lstm-attention",
        values.shape,
        n_classes=int(arrays["classes"]),
        n_train=len(train.clips),
        attention=None,
    )
    fitting.Loop = TimedLoop
    fitted = fit(train, val, config=config, recipe=recipe, seed=args.seed)
    tested = np.arange(len(arrays["test_y"]))
    logits, _ = apply_head(fitted.head, arrays["test_x"], tested, [f"{i}" for i in tested])
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in fitted.head.state_dict().values()))
    found = {
        "epoch_seconds": TimedLoop.seconds,
        "seconds": fitted.seconds,
        "accuracy": float((logits.argmax(dim=1).numpy() == arrays["test_y"]).mean()),
        "weights_sha256": digest.hexdigest(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
