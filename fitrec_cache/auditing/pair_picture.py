"""A picture of pairs of clips, the two clips of a pair side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from fitrec_cache.common.png import FAINT, FONT, INK, TRAINING, VALIDATION, drawable, save_png

_DPI = 110
_CELL, _GAP, _MARGIN, _MIDDLE, _HEAD, _FOOT = 1.5, 0.05, 0.15, 0.95, 0.5, 0.18  # inches
_TALLEST = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class PicturedClip:
    """One clip of a pair.

    Attributes:
        title: First line above its frames, such as the clip id.
        caption: Second line, such as class, group and side of the split.
        frames: A few of its frames in order, shape ``(k, h, w, 3)``, uint8 RGB.
    """

    title: str
    caption: str
    frames: NDArray[np.uint8]


def pairs_png(pairs: Sequence[tuple[PicturedClip, PicturedClip, float]], path: Path, *, title: str) -> None:
    """Draw pairs of clips below each other, the two of a pair side by side with their similarity between them.

    Args:
        pairs: Left clip, right clip and similarity of each pair, at least one; all clips show as many frames.
        path: PNG file to write; one that exists is replaced as a whole.
        title: Line above all.

    Raises:
        StoreError: If the file cannot be written.
    """
    half = len(pairs[0][0].frames) * (_CELL + _GAP) - _GAP
    heights = [max(_tall(left), _tall(right)) + _HEAD + _FOOT for left, right, _ in pairs]
    width, height = 2 * (_MARGIN + half) + _MIDDLE, sum(heights) + 0.45
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    _write(axes, _MARGIN, 0.3, title, size=12, longest=int(9 * width), weight="bold")
    top = 0.45
    for (left, right, similarity), tall in zip(pairs, heights, strict=True):
        axes.plot([_MARGIN, width - _MARGIN], [top, top], color="#DDDDDD", linewidth=0.8)
        _draw(axes, left, _MARGIN, top, half, TRAINING)
        _draw(axes, right, width - _MARGIN - half, top, half, VALIDATION)
        centre = top + _HEAD + (tall - _HEAD - _FOOT) / 2
        axes.text(
            width / 2, centre, f"{similarity:.3f}", fontsize=13, weight="bold", color=INK, ha="center", va="center"
        )
        top += tall
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")  # one unit is one inch
    save_png(figure, path, dpi=_DPI)


def _tall(clip: PicturedClip) -> float:
    """Return the height of a clip's frames in inches."""
    height, width = clip.frames.shape[1:3]
    return float(min(_CELL * height / width, _TALLEST))


def _draw(axes: Axes, clip: PicturedClip, left: float, top: float, width: float, colour: str) -> None:
    longest = int(13 * width)
    _write(axes, left, top + 0.22, clip.title, size=9, longest=longest)
    _write(axes, left, top + 0.4, clip.caption, size=8, longest=longest, color=FAINT)
    tall = _tall(clip)
    wide = tall * clip.frames.shape[2] / clip.frames.shape[1]
    for i, frame in enumerate(clip.frames):
        x = left + i * (_CELL + _GAP) + (_CELL - wide) / 2
        y = top + _HEAD
        axes.imshow(frame, extent=(x, x + wide, y + tall, y), aspect="auto", interpolation="antialiased")
        axes.add_patch(Rectangle((x, y), wide, tall, fill=False, edgecolor=colour, linewidth=1.2))


def _write(
    axes: Axes, x: float, y: float, text: str, *, size: float, longest: int, color: str = INK, weight: str = "normal"
) -> None:
    drawn = drawable(text, longest=longest)
    axes.text(x, y, drawn, fontsize=size, color=color, weight=weight, parse_math=False, fontfamily=FONT)
