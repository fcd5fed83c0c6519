"""Pictures of a run: training curves, confusion matrix, and the attention on each frame."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from fitrec_cache.common.files import write_atomic

TRAINING, VALIDATION, MARK, INK, FAINT = "#0072B2", "#D55E00", "#009E73", "#222222", "#6E6E6E"
"""Okabe and Ito's palette, which colour-blind readers can distinguish, and two greys."""

FONT = "DejaVu Sans"  # comes with matplotlib, so the pictures look the same everywhere
_DPI, _DPI_MANY = 130, 90
_LONGEST_SIDE = 4500  # pixels; limits the confusion matrix, whose area grows with the square of the number of classes
_PER_ROW = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionStrip:
    """The sampled frames of one clip and the weight of each.

    Attributes:
        title: Line above the frames, such as ``squat.mp4: Squat 0.83``.
        frames: Sampled frames in order, shape ``(T, h, w, 3)``, uint8 RGB.
        pts_seconds: Time of each frame from the start of the video in seconds, shape ``(T,)``.
        weights: Attention of each frame, shape ``(T,)``, not negative; they sum to 1.
    """

    title: str
    frames: NDArray[np.uint8]
    pts_seconds: NDArray[np.float64]
    weights: NDArray[np.float64]


def curves_png(history: Sequence[Mapping[str, float]], path: Path, *, title: str, best_epoch: int) -> None:
    """Draw loss and accuracy over the epochs, training beside validation.

    Args:
        history: One mapping per epoch with ``epoch`` (from 1 or 0 on), ``train_loss``, ``val_loss`` (not negative) and
            ``train_accuracy``, ``val_accuracy`` in ``[0, 1]``; at least one.
        path: PNG file to write; one that exists is replaced as a whole.
        title: Line above both panels.
        best_epoch: The epoch whose weights were kept.

    Raises:
        ValueError: If there is no epoch.
        StoreError: If the file cannot be written.
    """
    if not history:
        raise ValueError("history is empty: expected at least one epoch")
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
        ValueError: If the shape does not fit the names.
        StoreError: If the file cannot be written.
    """
    k = len(class_names)
    if confusion.shape != (k, k) or not k:
        raise ValueError(
            f"confusion has shape {confusion.shape}: expected ({k}, {k}), one row and column per class name"
        )
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
    save_png(figure, path, dpi=min(_DPI, int(_LONGEST_SIDE / side)), trim="tight")


def attention_png(clips: Sequence[AttentionStrip], path: Path) -> None:
    """Draw the sampled frames of each clip in order, with their times and a bar for the attention on each.

    A full bar is the largest weight of the clip, and the line across the bars is the weight of each frame if all
    counted the same; frames well above it (three at most) are outlined. Many clips are arranged in several columns and
    drawn smaller, so that the picture is about as wide as it is tall.

    Args:
        clips: The clips to draw, one block per clip, row by row; at least one.
        path: PNG file to write; one that exists is replaced as a whole.

    Raises:
        ValueError: If there is no clip or a clip's arrays do not match each other.
        StoreError: If the file cannot be written.
    """
    if not clips:
        raise ValueError("no clips: expected at least one to draw")
    for clip in clips:
        _check_strip(clip)
    sheets = [_Sheet.of(clip) for clip in clips]
    block, tall = max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)
    columns = max(1, round((tall / block) ** 0.5))
    rows = [max(sheet.height for sheet in sheets[i : i + columns]) for i in range(0, len(sheets), columns)]
    width, height = columns * block, sum(rows) + 0.35
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for i, (clip, sheet) in enumerate(zip(clips, sheets, strict=True)):
        row, column = divmod(i, columns)
        _draw_strip(axes, clip, sheet, column * block, sum(rows[:row]))
    axes.set(xlim=(0, width), ylim=(height, 0))  # one unit is one inch
    key = "Bar: attention, full = largest weight of the clip. Line: the weight if all frames counted the same."
    key = "All frames count the same." if all(_is_even(clip) for clip in clips) else key
    axes.text(_Sheet.margin, height - 0.15, key, fontsize=8, color=FAINT, fontfamily=FONT)
    save_png(figure, path, dpi=_DPI if columns == 1 else _DPI_MANY)


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


# --- attention ---


@dataclass(frozen=True, kw_only=True)
class _Sheet:
    """The sizes of one clip's block, in inches."""

    picture: float
    rows: int
    width: float

    cell = 1.35
    margin = 0.15
    gap = 0.08
    head = 0.5
    bar = 0.34
    foot = 0.32

    @classmethod
    def of(cls, clip: AttentionStrip) -> _Sheet:
        steps, h, w = clip.frames.shape[:3]
        columns = min(max(steps, 5), _PER_ROW)
        width = 2 * cls.margin + columns * (cls.cell + cls.gap) - cls.gap
        return cls(picture=min(max(cls.cell * h / w, 0.2), 2 * cls.cell), rows=-(-steps // _PER_ROW), width=width)

    @property
    def line(self) -> float:
        return self.picture + self.bar + self.foot

    @property
    def height(self) -> float:
        return self.head + self.rows * self.line


def _check_strip(clip: AttentionStrip) -> None:
    steps = len(clip.frames)
    if clip.frames.ndim != 4 or clip.frames.shape[3] != 3 or clip.frames.dtype != np.uint8 or not steps:
        raise ValueError(f"frames are {clip.frames.dtype} {clip.frames.shape}: expected uint8 (T, h, w, 3)")
    for name, values in (("pts_seconds", clip.pts_seconds), ("weights", clip.weights)):
        if values.shape != (steps,) or not np.isfinite(values).all():
            raise ValueError(f"{name} has shape {values.shape}: expected ({steps},) finite numbers, one per frame")
    if clip.weights.min() < 0:
        raise ValueError(f"a weight is {clip.weights.min()}: expected none below 0")


def _is_even(clip: AttentionStrip) -> bool:
    """Say whether a head weights all frames of a clip equally, as the baseline ``mean`` does."""
    return bool(np.ptp(clip.weights) < 1e-6)


def _draw_strip(axes: Axes, clip: AttentionStrip, sheet: _Sheet, left: float, top: float) -> None:
    left += sheet.margin
    title = drawable(clip.title, longest=int(7.5 * sheet.width))
    axes.text(left, top + 0.33, title, fontsize=12, weight="bold", color=INK, parse_math=False, fontfamily=FONT)
    highlights = stand_out(clip.weights)
    for i in range(len(clip.frames)):
        x = left + (i % _PER_ROW) * (sheet.cell + sheet.gap)
        _draw_frame(axes, clip, sheet, i, x, top + sheet.head + i // _PER_ROW * sheet.line, i in highlights)


def stand_out(weights: NDArray[np.float64]) -> set[int]:
    """Return the numbers of up to three frames whose weight is well above an equal share."""
    best = np.argsort(-weights, kind="stable")[:3]
    return {int(i) for i in best if weights[i] > 1.1 * weights.mean()}


def _draw_frame(
    axes: Axes, clip: AttentionStrip, sheet: _Sheet, i: int, left: float, top: float, highlight: bool
) -> None:
    right, bottom = left + sheet.cell, top + sheet.picture
    colour = VALIDATION if highlight else TRAINING
    h, w = clip.frames.shape[1:3]
    inset = max(0.0, (sheet.cell - sheet.picture * w / h) / 2)  # only for pictures more than twice as tall as wide
    extent = (left + inset, right - inset, bottom, top)
    axes.imshow(clip.frames[i], extent=extent, aspect="auto", interpolation="antialiased")
    edge: dict[str, Any] = (
        {"edgecolor": colour, "linewidth": 2.6} if highlight else {"edgecolor": "#CCCCCC", "linewidth": 0.6}
    )
    axes.add_patch(Rectangle((left, top), sheet.cell, sheet.picture, fill=False, **edge))
    floor, full = bottom + sheet.bar, sheet.bar - 0.08
    axes.text(left, floor + 0.15, f"{clip.pts_seconds[i]:.2f} s", fontsize=8, color=INK, fontfamily=FONT)
    if _is_even(clip):
        return
    largest = max(float(clip.weights.max()), 1e-12)
    tall = full * float(clip.weights[i]) / largest
    axes.add_patch(Rectangle((left, floor - full), sheet.cell, full, facecolor="#F1F1F1", edgecolor="none"))
    axes.add_patch(Rectangle((left, floor - tall), sheet.cell, tall, facecolor=colour, edgecolor="none"))
    alike = floor - full * float(clip.weights.mean()) / largest
    axes.plot([left, right], [alike, alike], color=INK, linewidth=0.8)
    weight: dict[str, Any] = {"weight": "bold", "color": colour} if highlight else {"color": FAINT}
    axes.text(right, floor + 0.15, f"{clip.weights[i]:.3f}", fontsize=8, ha="right", fontfamily=FONT, **weight)


# --- text and files ---


@cache
def _drawable() -> frozenset[int]:
    """Return the code points that the font contains."""
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


def drawable(text: str, longest: int = 90) -> str:
    """Return text that the font can draw, shortened in the middle; other characters become question marks."""
    drawn = "".join(char if ord(char) in _drawable() else "?" for char in " ".join(text.split()))
    keep = (longest - 1) // 2
    return drawn if len(drawn) <= longest else f"{drawn[:keep]}…{drawn[-keep:]}"


def drawable_names(names: Sequence[str], longest: int) -> list[str]:
    """Return names as :func:`drawable` gives them, numbered if some would otherwise look the same."""
    drawn = [drawable(name, longest=longest) for name in names]
    return drawn if len(set(drawn)) == len(drawn) else [f"{i} {name}" for i, name in enumerate(drawn, start=1)]


def save_png(figure: Figure, path: Path, *, dpi: int = _DPI, trim: Literal["tight"] | None = None) -> None:
    """Write a picture as PNG, atomically.

    Raises:
        StoreError: If the file cannot be written.
    """
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi, facecolor="white", bbox_inches=trim, pad_inches=0.15)
    write_atomic(path, data.getvalue())
