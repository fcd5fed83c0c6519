"""Charts of the page: drawn by matplotlib; a style sheet in the SVG sets the colours for light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

#: Role -> (colour that matplotlib draws with, colour in light mode, colour in dark mode). Okabe and Ito's palette.
_ROLES = {
    "ink": ("#222222", "#222b36", "#e6ebf1"),
    "faint": ("#8a8a8a", "#6b7683", "#94a1b0"),
    "grid": ("#e6e6e6", "#e1e6ec", "#343d49"),
    "train": ("#0072b2", "#0b66a8", "#6db8f2"),
    "val": ("#d55e00", "#b94f00", "#ffa35c"),
}
_INK, _FAINT, _GRID, _TRAIN, _VAL = (role[0] for role in _ROLES.values())
_STYLE = (
    "<style>:root{"
    + "".join(f"--{name}:{light};" for name, (_, light, _) in _ROLES.items())
    + "}@media (prefers-color-scheme:dark){:root{"
    + "".join(f"--{name}:{dark};" for name, (_, _, dark) in _ROLES.items())
    + "}}</style>"
)

History = Sequence[Mapping[str, float]]


def curve_svg(histories: Sequence[tuple[History, int]], measure: str) -> str:
    """Draw one measure over the epochs of all runs of a model.

    Args:
        histories: For each run, its epochs (``epoch``, ``train_loss``, ...) and the epoch that was kept.
        measure: ``loss`` or ``accuracy``.

    Returns:
        SVG, 4 x 3 inches; dashed is training, solid validation, a diamond is the kept epoch of a run.
    """
    figure, axes = _axes("epoch", measure)
    alpha = 1.0 if len(histories) == 1 else 0.75
    for run, (history, best) in enumerate(histories):
        epochs = [row["epoch"] for row in history]
        for side, label, colour, dashes in (("train", "training", _TRAIN, "--"), ("val", "validation", _VAL, "-")):
            style: dict[str, Any] = {"linewidth": 1.5, "alpha": alpha, "marker": "o" if len(epochs) == 1 else None}
            values = [row[f"{side}_{measure}"] for row in history]
            axes.plot(epochs, values, dashes, color=colour, label=label if run == 0 else None, **style)
        kept = [row[f"val_{measure}"] for row in history if row["epoch"] == best]
        mark = "kept epoch" if run == 0 else None
        axes.plot([best] * len(kept), kept, "D", color=_INK, markersize=5, linestyle="none", label=mark, zorder=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10], nbins=6))
    axes.set_ylim(bottom=0)
    if measure == "accuracy":
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False, fontsize=9, loc="best", labelcolor=_INK)
    return _svg(figure)


def reliability_svg(points: Sequence[tuple[float, float, float, float, float]]) -> str:
    """Draw the accuracy of answers against their confidence.

    Args:
        points: For each bin with clips: confidence, accuracy, its interval's low and high end, all in ``[0, 1]``, and
            the bin's share of all clips.

    Returns:
        SVG, 4 x 3 inches; on the diagonal, confidence equals accuracy.
    """
    figure, axes = _axes("how sure it is (confidence)", "how often it is right")
    axes.plot([0, 1], [0, 1], ":", color=_FAINT, linewidth=1.4, label="as sure as right")
    for confidence, accuracy, low, high, share in points:
        axes.plot([confidence, confidence], [low, high], "-", color=_TRAIN, linewidth=1.4, alpha=0.8)
        axes.plot([confidence], [accuracy], "o", color=_TRAIN, markersize=4 + 14 * share**0.5, clip_on=False)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.02), "borderaxespad": 0}  # no line crosses it
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK, **above)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return _svg(figure)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4, 3), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.set_xlabel(x, fontsize=10, color=_INK)
    axes.set_ylabel(y, fontsize=10, color=_INK)
    axes.tick_params(labelsize=9.5, color=_FAINT, labelcolor=_INK)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # Text is kept as text, which is smaller and uses the reader's own font. The fixed salt makes output reproducible.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fitrec-cache"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = re.sub(r"<\?xml.*?(?=<svg)", "", buffer.getvalue(), count=1, flags=re.DOTALL)
    drawn: dict[str, str] = {hue: f"var(--{name})" for name, (hue, _, _) in _ROLES.items()}
    themed: Callable[[re.Match[str]], str] = lambda found: drawn[found[0]]  # noqa: E731
    svg = re.sub("|".join(drawn), themed, svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + _STYLE, svg, count=1)
