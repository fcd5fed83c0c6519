"""The times of a source that is opened again after its connection was lost."""

from __future__ import annotations

import math
from dataclasses import replace

from fitrec_cache.live.assembly import WindowClip


class Continued:
    """Counts the times of all connections from the first frame of the first one.

    Each connection counts from its own first frame. By how much that is later is told by the times at which windows are
    ready, so it is as exact as the stream is punctual: what a server sends at once counts as shown when it arrives.

    Args:
        every: Seconds between the beginnings of consecutive windows; at least this much is left out where a connection
            was lost.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._origin: float | None = None  # when the very first frame was shown
        self._shift: float | None = None  # of this connection; None until its first window
        self._from = self._end = -math.inf

    def lost(self) -> None:
        """The next window is of another connection."""
        self._shift = None

    def place(self, clip: WindowClip) -> WindowClip | None:
        """Return a window with its times counted from the very first frame; None if that time has an answer already."""
        shown = clip.ready - clip.end  # the first frame of this connection, at the latest
        if self._shift is None:
            self._shift = 0.0 if self._origin is None else shown - self._origin
            self._from = self._end + self._every
        if self._shift == 0:  # the first connection: the window that was delayed least tells best
            self._origin = shown if self._origin is None else min(self._origin, shown)
        start, end = clip.start + self._shift, clip.end + self._shift
        if start < self._from:
            return None
        self._end = end
        return replace(clip, start=start, end=end)
