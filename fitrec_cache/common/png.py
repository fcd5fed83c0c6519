"""What all PNG pictures share: colours, a font, names that it can draw, and writing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fitrec_cache.common.files import write_atomic

TRAINING, VALIDATION, MARK, INK, FAINT = "#0072B2", "#D55E00", "#009E73", "#222222", "#6E6E6E"
"""Okabe and Ito's palette, which colour-blind readers can distinguish, and two greys."""

FONT = "DejaVu Sans"  # comes with matplotlib, so the pictures look the same everywhere
DPI = 130


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


def save_png(figure: Figure, path: Path, *, dpi: int = DPI, trim: Literal["tight"] | None = None) -> None:
    """Write a picture as PNG, atomically.

    Raises:
        StoreError: If the file cannot be written.
    """
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi, facecolor="white", bbox_inches=trim, pad_inches=0.15)
    write_atomic(path, data.getvalue())
