"""Determine which frames of a stream belong to which window: arithmetic on times, without input or output."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

#: A frame that is displayed for longer than this many times the usual, and longer than a window, is followed by a gap.
_STILL = 10


@dataclass(kw_only=True)
class Windows:
    """Overlapping windows of equal length that begin at regular intervals.

    Window ``k`` covers ``seconds`` from ``k * every`` after the start of the stream. Its samples are chosen like those
    of a clip (:func:`fitrec_cache.video.sampling.frame_indices`), but by time: sample ``i = 1 .. T`` is the frame on
    display at ``i * seconds / (T + 1)`` after the window's beginning. If frames come at a constant rate and a window
    contains a whole number of them, these are the same frames as if that part were a clip of its own.

    Attributes:
        seconds: Length of a window, above 0.
        every: Time between the beginnings of consecutive windows, above 0.
        samples: Number of frames sampled per window, ``T``.
    """

    seconds: Fraction
    every: Fraction
    samples: int
    _first: int = field(default=0, init=False)  # the earliest window with samples to come
    _taken: Counter[int] = field(default_factory=Counter, init=False)  # by window: samples already due before

    def due(self, before: Fraction) -> dict[int, int]:
        """Return how many samples of each window lie before a time and were not due in an earlier call.

        Args:
            before: Seconds since the start of the stream, never less than in the previous call.

        Returns:
            Number of samples by window, ascending; windows without any are left out.
        """
        found: dict[int, int] = {}
        number = self._first
        while number * self.every < before:
            count = self._samples_before(before - number * self.every)
            if new := count - self._taken[number]:
                found[number] = new
                self._taken[number] = count
            number += 1
        while self._taken[self._first] == self.samples:
            del self._taken[self._first]
            self._first += 1
        return found

    def _samples_before(self, time: Fraction) -> int:
        """Return how many samples of a window lie before ``time``, counted from its beginning."""
        whole = math.ceil(time * (self.samples + 1) / self.seconds)  # a sample at this very time is not earlier
        return min(self.samples, max(0, whole - 1))

    def restart(self, time: Fraction) -> None:
        """Discard the windows that have begun and those that begin before a time, because their frames are missing."""
        self._first = math.ceil(time / self.every)
        self._taken.clear()

    def is_gap(self, shown: Fraction, usual: Fraction) -> bool:
        """Say whether a frame is on display for so long, compared with others, that no window may span it; seconds."""
        return shown > max(self.seconds, _STILL * usual)

    def within(self, seconds: float) -> int:
        """Return how many windows have all their samples within this many seconds from the start of the stream."""
        last = self.seconds * self.samples / (self.samples + 1)
        return max(0, math.ceil((Fraction(seconds) - last) / self.every))

    def span(self, number: int) -> tuple[float, float]:
        """Return beginning and end of a window, in seconds since the start of the stream."""
        return float(number * self.every), float(number * self.every + self.seconds)
