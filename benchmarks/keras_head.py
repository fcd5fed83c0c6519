"""The paper's ResNet50 head in Keras, on arrays from an .npz; run by an interpreter that has tensorflow.

    python benchmarks/keras_head.py ARRAYS.npz --epochs 5 --seed 0

Keeps the epoch with the lowest validation loss, as this program does. Prints one JSON object: seconds of each epoch,
test accuracy, versions.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def build(frames: int, dim: int, classes: int) -> keras.Model:
    x = keras.Input((frames, dim))
    states = layers.LSTM(128, return_sequences=True)(x)  # (B, T, 128)
    scores = layers.Dense(1)(layers.Dense(128, activation="relu")(states))  # (B, T, 1), Eq. 9
    weights = layers.Softmax(axis=1)(scores)
    pooled = layers.GlobalAveragePooling1D()(layers.Multiply()([weights, states]))  # (B, 128)
    return keras.Model(x, layers.Dense(classes, activation="softmax", dtype="float32")(pooled))


class EpochSeconds(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16: Keras' mixed_bfloat16")
    args = parser.parse_args()
    if args.precision == "bf16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    arrays = dict(np.load(args.arrays))
    keras.utils.set_random_seed(args.seed)
    sides = {name: arrays[f"{name}_x"].astype(np.float32) for name in ("train", "val", "test")}
    model = build(*sides["train"].shape[1:], int(arrays["classes"]))
    model.compile(keras.optimizers.Adam(args.learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    clock = EpochSeconds()
    model.fit(
        sides["train"],
        arrays["train_y"],
        batch_size=32,
        epochs=args.epochs,
        validation_data=(sides["val"], arrays["val_y"]),
        callbacks=[clock, keras.callbacks.EarlyStopping(patience=args.epochs, restore_best_weights=True)],
        verbose=0,
    )
    _, accuracy = model.evaluate(sides["test"], arrays["test_y"], verbose=0)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    print(json.dumps({"epoch_seconds": clock.seconds, "accuracy": float(accuracy), "versions": versions}))


if __name__ == "__main__":
    main()
