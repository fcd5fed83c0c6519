"""Choose which frames of a clip are used: index arithmetic without input or output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def frame_indices(n_frames: int, *, samples: int = 20) -> NDArray[np.int64]:
    """Return the numbers of the frames that represent a clip.

    ``samples`` inner points divide the clip into ``samples + 1`` equal spans, and the frame at each point is taken:
    frame ``floor(i * n_frames / (samples + 1))`` for ``i = 1 .. samples``. The very beginning and end are left out,
    where the exercise may not have begun or may be over. If a clip has fewer frames than points, some are repeated.

    Args:
        n_frames: Number of frames of the clip that decode, which may differ from its header; at least 1.
        samples: Number of indices, the ``T`` of ``(T, d)``; at least 1.

    Returns:
        Non-decreasing frame numbers, shape ``(samples,)``, int64, each in ``[0, n_frames)``.

    Raises:
        ValueError: If ``n_frames`` or ``samples`` is not a whole number of at least 1.

    Example:
        >>> frame_indices(42, samples=20)[:4]
        array([2, 4, 6, 8])
        >>> frame_indices(3, samples=5)
        array([0, 1, 1, 2, 2])

    Source:
        Eq. 1 of Nishat et al., arXiv 2509.02511.
    """
    for name, value in (("n_frames", n_frames), ("samples", samples)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}: expected a whole number of at least 1")
    points = np.arange(1, samples + 1, dtype=np.int64)  # (T,)
    return points * int(n_frames) // (int(samples) + 1)


def clip_length(pts_seconds: Sequence[float]) -> float | None:
    """Return the length of a clip in seconds, derived from the times of its T frames; None if that is impossible.

    The frames lie at 1 to T of T + 1 equal parts of the clip, so from first to last they span T - 1 of these parts.

    Example:
        >>> clip_length([1.0, 2.0, 3.0])
        4.0
    """
    parts = len(pts_seconds) - 1
    span = pts_seconds[-1] - pts_seconds[0] if parts > 0 else 0.0
    return span * (parts + 2) / parts if 0 < span < math.inf else None
