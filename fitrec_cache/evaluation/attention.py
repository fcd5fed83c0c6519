"""Attention: whether it distinguishes the frames of a clip, and which it prefers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def is_even(weights: NDArray[np.float64]) -> bool:
    """Say whether all frames of each clip, ``(..., T)``, weigh the same, as in the baseline ``mean``."""
    return bool((np.ptp(weights, axis=-1) < 1e-6).all())


def stand_out(weights: NDArray[np.float64]) -> set[int]:
    """Return the numbers of up to three frames whose weight is at least half as high again as an equal share."""
    best = np.argsort(-weights, kind="stable")[:3]
    return {int(i) for i in best if weights[i] > 1.5 * weights.mean()}
