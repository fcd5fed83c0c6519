"""Pictures of a run: training curves and confusion matrix."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from fitrec_cache.common.png import (
    DPI,
    FAINT,
    FONT,
    INK,
    MARK,
    TRAINING,
    VALIDATION,
    drawable,
    drawable_names,
    save_png,
)

_LONGEST_SIDE = 4500  # pixels; limits the confusion matrix, whose area grows with the square of the number of classes


def curves_png(history: Sequence[Mapping[str, float]], path: Path, *, title: str, best_epoch: int) -> None:
    """Draw loss and accuracy over the epochs, training beside validation.

    Args:
        history: One mapping per epoch with ``epoch`` (from 1 or 0 on), ``train_loss``, ``val_loss`` (not negative) and
            ``train_accuracy``, ``val_accuracy`` in ``[0, 1]``; at least one.
        path: PNG file to write; one that exists is replaced as a whole.
        title: Line above both panels.
        best_epoch: The epoch whose weights were kept.

    Raises:
        StoreError: If the file cannot be written.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(drawable(title), fontsize=12, color=INK, parse_math=False, fontfamily=FONT)
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
        _curve(axes, history, name, best_epoch)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[1].set_ylim(0, 1.02)
    panels[0].axhline(0, alpha=0)  # brings zero into the range, so that the margin above suits it
    panels[0].margins(y=0.08)
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False, fontsize=9)
    save_png(figure, path)


def confusion_png(confusion: NDArray[np.int64], class_names: Sequence[str], path: Path, *, title: str) -> None:
    """Draw a confusion matrix: the colour shows the share of the true class, the numbers count clips.

    With more than 40 classes the numbers are left out, and colours follow the square root of the share, so that a
    single clip is visible. With more than 200 the cells shrink, so that the picture does not grow. A class without test
    clips has a grey row.

    Args:
        confusion: Clip counts, shape ``(K, K)``, integers; row = true class, column = predicted class.
        class_names: The K class names in row order.
        path: PNG file to write; one that exists is replaced as a whole.
        title: Line above the matrix.

    Raises:
        StoreError: If the file cannot be written.
    """
    k = len(class_names)
    cell = 0.62 if k <= 8 else 0.42 if k <= 20 else 0.3 if k <= 40 else 0.17  # inches
    side = max(2.6, k * cell)
    figure = Figure(figsize=(side, side))  # the picture is trimmed to what is drawn, also outside of this square
    axes = figure.add_axes((0, 0, 1, 1))
    support = confusion.sum(axis=1, keepdims=True)  # (K, 1)
    share = np.ma.masked_where(np.broadcast_to(support == 0, (k, k)), confusion / np.maximum(support, 1))
    axes.set_facecolor("#E4E4E4")
    edges = np.arange(k + 1) - 0.5
    norm = PowerNorm(1 if k <= 40 else 0.5, vmin=0, vmax=1)
    image = axes.pcolormesh(edges, edges, share, cmap="Blues", norm=norm)  # imshow takes 40 bytes per pixel
    axes.invert_yaxis()
    width = int(10 * (side + 1.5))
    lines = [line for each in title.split("\n") for line in textwrap.wrap(drawable(each, longest=300), width)]
    axes.set_title("\n".join(lines), fontsize=12, color=INK, parse_math=False, fontfamily=FONT, pad=10, loc="left")
    _name_classes(axes, drawable_names(class_names, longest=28), size=min(10.0, cell * 34))
    if k <= 40:
        _write_counts(axes, confusion, share.filled(0), size=min(11.0, cell * 24))
    tall = min(1.0, 5 / side)
    strip = figure.add_axes((1 + 0.2 / side, 1 - tall, 0.18 / side, tall))
    bar = figure.colorbar(image, cax=strip, format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the true class", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    save_png(figure, path, dpi=min(DPI, int(_LONGEST_SIDE / side)), trim="tight")


# --- curves ---


def _curve(axes: Axes, history: Sequence[Mapping[str, float]], name: str, best_epoch: int) -> None:
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) == 1 else None
    for side, label, colour, dashes in (("train", "training", TRAINING, "--"), ("val", "validation", VALIDATION, "-")):
        values = [row[f"{side}_{name}"] for row in history]
        axes.plot(epochs, values, dashes, color=colour, linewidth=1.8, label=label, marker=marker)
    axes.axvline(best_epoch, color=FAINT, linewidth=1, linestyle=":", zorder=0)
    best = [row[f"val_{name}"] for row in history if row["epoch"] == best_epoch]
    label = f"kept epoch ({best_epoch})"
    axes.plot([best_epoch] * len(best), best, "D", color=MARK, markersize=7, label=label, zorder=5, markeredgecolor="w")
    axes.set_title(name.capitalize(), fontsize=11, color=INK, loc="left")
    axes.set_xlabel("epoch", fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=9, color=FAINT)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


# --- confusion ---


def _name_classes(axes: Axes, names: Sequence[str], size: float) -> None:
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90, fontsize=size, parse_math=False, fontfamily=FONT)
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False, fontfamily=FONT)
    axes.set_xlabel("predicted", fontsize=11, color=INK)
    axes.set_ylabel("true", fontsize=11, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _write_counts(axes: Axes, confusion: NDArray[np.int64], share: NDArray[np.float64], size: float) -> None:
    for row, column in np.argwhere(confusion):
        colour = "white" if share[row, column] > 0.66 else INK
        axes.text(
            column, row, f"{confusion[row, column]}", ha="center", va="center_baseline", fontsize=size, color=colour
        )
