"""A picture of the timeline: what was recognised at which time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fitrec_cache.common.png import FAINT, FONT, INK, MARK, drawable, drawable_names, save_png
from fitrec_cache.live.timeline import Moment, Segment, clock

_DPI = 110
_ROW, _WIDTH, _MARGINS = 0.28, 11.0, 1.5  # inches
_MOST_ROWS = 16
_UNSEEN = "#ECECEC"
_LONGEST = 32  # greatest number of characters of a label


def timeline_png(moments: Sequence[Moment], segments: Sequence[Segment], path: Path, *, title: str) -> None:
    """Draw the probability of each class over time, one row per class, with the answers outlined.

    Args:
        moments: Answers of the windows in order, at least one.
        segments: The segments into which they were merged.
        path: PNG file to write; one that exists is replaced as a whole.
        title: Line above the rows.

    Raises:
        StoreError: If the file cannot be written.
    """
    labels = _rows(moments, segments)
    edges, seen = _columns(moments, segments)
    chances = [None if m is None else dict(m.top) for m in seen]
    values = np.array([[np.nan if c is None else c.get(label, 0.0) for c in chances] for label in labels])
    names = drawable_names(labels, longest=_LONGEST)
    if any(segment.label is None for segment in segments):
        names.append("unknown")
    figure = Figure(figsize=(_WIDTH, _ROW * len(names) + _MARGINS), layout="constrained")
    axes = figure.add_subplot(facecolor=_UNSEEN)
    shades = axes.pcolormesh(edges, np.arange(len(labels) + 1), values, cmap="Blues", vmin=0, vmax=1, edgecolors="none")
    for label in dict.fromkeys(segment.label for segment in segments):  # all of a class at once: there may be thousands
        axes.broken_barh(
            [(s.start, s.end - s.start) for s in segments if s.label == label],
            ((len(labels) if label is None else labels.index(label)) + 0.08, 0.84),
            facecolors="#D2D2D2" if label is None else "none",
            edgecolors=FAINT if label is None else MARK,
            linewidth=1.8,
        )
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=9, fontfamily=FONT, parse_math=False)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(len(names), 0))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 3, 6, 10]))
    tenths = None if edges[-1] - edges[0] < 5 else -2  # the axis marks of a short video are less than a second apart
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(max(0.0, seconds))[:tenths]))
    axes.tick_params(labelsize=9, color=FAINT, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(drawable(title, longest=100), fontsize=11, color=INK, loc="left", parse_math=False)
    bar = figure.colorbar(shades, ax=axes, pad=0.01, aspect=12, format="{x:.0%}")
    bar.set_label("probability; outlined: the answer", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8)
    save_png(figure, path, dpi=_DPI)


def _columns(moments: Sequence[Moment], segments: Sequence[Segment]) -> tuple[list[float], list[Moment | None]]:
    """Return the edges of columns in seconds and the answer in each column; None in a gap."""
    unseen = {(a.end, b.start) for a, b in pairwise(segments) if b.start > a.end}
    edges: list[float] = [moments[0].start]
    seen: list[Moment | None] = []
    for a, b in pairwise(moments):
        gap = (a.end, b.start) in unseen
        edges += [a.end, b.start] if gap else [(a.middle + b.middle) / 2]
        seen += [a, None] if gap else [a]
    return [*edges, moments[-1].end], [*seen, moments[-1]]


def _rows(moments: Sequence[Moment], segments: Sequence[Segment]) -> list[str]:
    """Return the classes to show: first those that were answered, in order of time, then the most probable others."""
    answered = list(dict.fromkeys(s.label for s in segments if s.label is not None))
    highest: dict[str, float] = {}
    for moment in moments:
        for label, probability in moment.top:
            highest[label] = max(highest.get(label, 0.0), probability)
    others = sorted(highest.keys() - set(answered), key=lambda label: -highest[label])
    return [*answered, *others][: max(_MOST_ROWS, len(answered))]
