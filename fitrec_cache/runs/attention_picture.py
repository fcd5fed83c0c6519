"""The sampled frames of clips, with the attention on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from fitrec_cache.common.png import DPI, FAINT, FONT, INK, TRAINING, VALIDATION, drawable, save_png
from fitrec_cache.evaluation.attention import is_even, stand_out

_DPI_MANY = 90
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


def attention_png(clips: Sequence[AttentionStrip], path: Path) -> None:
    """Draw the sampled frames of each clip in order, with their times and a bar for the attention on each.

    A full bar is the largest weight of the clip, and the line across the bars is the weight of each frame if all
    counted the same; frames well above it (three at most) are outlined. Many clips are arranged in several columns and
    drawn smaller, so that the picture is about as wide as it is tall.

    Args:
        clips: The clips to draw, one block per clip, row by row; at least one.
        path: PNG file to write; one that exists is replaced as a whole.

    Raises:
        StoreError: If the file cannot be written.
    """
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
    key = "Bar: attention, full = largest weight of the clip. Line: the weight if all frames counted the same. "
    key += "Orange: up to three that count half as much again, or more."
    key = "All frames count the same." if all(is_even(clip.weights) for clip in clips) else key
    axes.text(_Sheet.margin, height - 0.15, key, fontsize=8, color=FAINT, fontfamily=FONT)
    save_png(figure, path, dpi=DPI if columns == 1 else _DPI_MANY)


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


def _draw_strip(axes: Axes, clip: AttentionStrip, sheet: _Sheet, left: float, top: float) -> None:
    left += sheet.margin
    title = drawable(clip.title, longest=int(7.5 * sheet.width))
    axes.text(left, top + 0.33, title, fontsize=12, weight="bold", color=INK, parse_math=False, fontfamily=FONT)
    highlights = stand_out(clip.weights)
    for i in range(len(clip.frames)):
        x = left + (i % _PER_ROW) * (sheet.cell + sheet.gap)
        _draw_frame(axes, clip, sheet, i, x, top + sheet.head + i // _PER_ROW * sheet.line, i in highlights)


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
    if is_even(clip.weights):
        return
    largest = max(float(clip.weights.max()), 1e-12)
    tall = full * float(clip.weights[i]) / largest
    axes.add_patch(Rectangle((left, floor - full), sheet.cell, full, facecolor="#F1F1F1", edgecolor="none"))
    axes.add_patch(Rectangle((left, floor - tall), sheet.cell, tall, facecolor=colour, edgecolor="none"))
    alike = floor - full * float(clip.weights.mean()) / largest
    axes.plot([left, right], [alike, alike], color=INK, linewidth=0.8)
    weight: dict[str, Any] = {"weight": "bold", "color": colour} if highlight else {"color": FAINT}
    axes.text(right, floor + 0.15, f"{clip.weights[i]:.3f}", fontsize=8, ha="right", fontfamily=FONT, **weight)
