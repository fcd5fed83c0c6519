"""Put the frames of a stream together to the clips of its windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fitrec_cache.live.windows import Windows


@dataclass(frozen=True, kw_only=True)
class WindowClip:
    """The sampled frames of one window.

    Attributes:
        start: Seconds since the beginning of the stream.
        end: The same.
        jpegs: T encoded frames, by short side in pixels.
        ready: When its last frame was known, as ``time.monotonic()`` tells it.
    """

    start: float
    end: float
    jpegs: dict[int, list[bytes]]
    ready: float


class Assembly:
    """Collects the samples of windows that overlap.

    Args:
        windows: Determines the frames of each window.
        short_sides: The sizes in which each frame is encoded, in pixels of the short side.

    Attributes:
        complete: Number of windows so far that have all their samples.
        stop: End of the latest of these, in seconds since the start of the stream.
        torn: Number of windows that were discarded although they had samples.
    """

    def __init__(self, windows: Windows, short_sides: Sequence[int]) -> None:
        self._windows, self._short_sides = windows, short_sides
        self._growing: dict[int, list[dict[int, bytes]]] = {}
        self.complete, self.stop, self.torn = 0, 0.0, 0

    def add(self, until: Fraction, encode: Callable[[], dict[int, bytes]]) -> list[WindowClip]:
        """Add the frame that is on display up to a time; return the windows that it completes.

        Args:
            until: Seconds since the start of the stream.
            encode: Returns the frame as a JPEG file for each short side; called only if a window needs the frame.
        """
        due, known = self._windows.due(until), time.monotonic()
        try:
            kept = encode() if due else {}
        except BaseException:  # the windows lack this frame
            self.restart(until)
            raise
        complete = []
        for number, count in due.items():
            samples = self._growing.setdefault(number, [])
            samples += [kept] * count
            if len(samples) == self._windows.samples:
                start, self.stop = self._windows.span(number)
                frames = self._growing.pop(number)
                jpegs = {side: [each[side] for each in frames] for side in self._short_sides}
                complete.append(WindowClip(start=start, end=self.stop, jpegs=jpegs, ready=known))
        self.complete += len(complete)
        return complete

    def restart(self, at: Fraction) -> None:
        """Discard windows that reach back before a time: because of a gap, for instance, which none may span."""
        self._windows.restart(at)
        self.torn += len(self._growing)
        self._growing.clear()
