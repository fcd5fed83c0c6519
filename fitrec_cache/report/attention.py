"""The frames to which a head attends, for right and for wrong answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.evaluation.attention import is_even, stand_out
from fitrec_cache.report.pictures import Frames, Picture
from fitrec_cache.report.records import Record

#: The greatest number of frames shown per clip, and their width in pixels.
MOST_FRAMES, _WIDTH = 20, 112


@dataclass(frozen=True, kw_only=True)
class Step:
    """One frame with its attention: the weight, also relative to the clip's largest, and whether it stands out."""

    picture: Picture | None
    number: int
    weight: float
    relative: float
    stands_out: bool


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A clip with the attention on its frames."""

    clip_id: str
    true: str
    guess: str
    confidence: float
    steps: tuple[Step, ...]

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return self.true == self.guess


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Clips with their attention; ``right`` and ``wrong`` are effective numbers of frames, None without such clips."""

    frames: int
    right: float | None
    wrong: float | None
    strips: tuple[Strip, ...]
    even: bool


def attention(record: Record, frames: Frames | None) -> Attention:
    """Return the attention of a run on its most confident right and wrong answers."""
    right = record.right
    weights = record.tested.attention.astype(np.float64)  # (n, T)
    effective = np.exp(-(weights * np.log(np.maximum(weights, 1e-12))).sum(axis=1))  # (n,)
    even = is_even(weights) or bool((effective < 1 + 1e-6).all())
    sides = [] if even else [right, ~right]
    chosen = [i for side in sides for i in _surest(record, side)]
    return Attention(
        frames=weights.shape[1],
        right=float(effective[right].mean()) if right.any() else None,
        wrong=float(effective[~right].mean()) if not right.all() else None,
        strips=tuple(_strip(record, i, frames) for i in chosen),
        even=even,
    )


def _surest(record: Record, among: NDArray[np.bool_]) -> list[int]:
    """Return up to three clips with the most confident answers, each of a different true class."""
    chosen: dict[int, int] = {}
    for i in np.argsort(-record.probabilities.max(axis=1), kind="stable").tolist():
        if among[i]:
            chosen.setdefault(int(record.tested.targets[i]), i)
    return list(chosen.values())[:3]


def _strip(record: Record, i: int, frames: Frames | None) -> Strip:
    answers, weights = record.tested, record.tested.attention[i].astype(np.float64)  # (T,)
    picked = np.unique(np.linspace(0, len(weights) - 1, min(len(weights), MOST_FRAMES)).round().astype(int)).tolist()
    pictures = frames.strip(record.clips[i], picked, width=_WIDTH) if frames is not None else []
    shown: list[Picture | None] = [*pictures] if len(pictures) == len(picked) else [None] * len(picked)
    bar = max(float(weights.max()), 1e-12)
    top = stand_out(weights)
    steps = tuple(
        Step(picture=p, number=t + 1, weight=float(weights[t]), relative=float(weights[t]) / bar, stands_out=t in top)
        for t, p in zip(picked, shown, strict=True)
    )
    return Strip(
        clip_id=record.clips[i],
        true=record.labels[answers.targets[i]],
        guess=record.labels[answers.guesses[i]],
        confidence=float(record.probabilities[i].max()),
        steps=steps,
    )
