"""The times of a source that is opened again after its connection was lost."""

from __future__ import annotations

from dataclasses import replace

from fitrec_cache.live.assembly import WindowClip


class Continued:
    """Counts the times of all connections from the first frame of the first one.

    Each connection counts from its own first frame. By how much that is later is told by the times at which windows are
    ready, so it is as exact as the stream is punctual.

    Args:
        every: Seconds between the beginnings of consecutive windows. After a lost connection at least this much is left
            out, even if a server sends old frames again.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._began: float | None = None  # when the first frame of all was shown
        self._shift: float | None = None  # of this connection; None until its first window
        self._end = 0.0

    def lost(self) -> None:
        """The next window is of another connection."""
        self._shift = None

    def place(self, clip: WindowClip) -> WindowClip:
        """Return a window with its times counted from the very first frame."""
        if self._began is None:
            self._began, self._shift = clip.ready - clip.end, 0.0
        if self._shift is None:
            shown = clip.ready - clip.end - self._began
            self._shift = max(shown, self._end + self._every - clip.start)
        self._end = clip.end + self._shift
        return replace(clip, start=clip.start + self._shift, end=self._end)
