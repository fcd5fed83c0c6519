"""The timeline: the answers of windows are merged into segments."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from fitrec_cache.common.files import Plain
from fitrec_cache.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The answer for one window.

    Attributes:
        start: Beginning of the window, in seconds since the first frame of the stream.
        end: Its end.
        top: All labels with their probabilities, best first.
        unknown: Whether the highest probability is below the threshold; for averaged answers with the run's own
            thresholds, whether that holds for most of them.
        heads: Number of seeds that answered together.
        skipped: Number of windows left out before this one because they arrived faster than they were answered.
        delay: Seconds from the window's last frame to the answer.
        model: What tells the model that answered from others (:func:`fitrec_cache.runs.ensemble.model_id`).
    """

    start: float
    end: float
    top: tuple[tuple[str, float], ...]
    unknown: bool
    heads: int
    skipped: int = 0
    delay: float = field(default=0.0, compare=False)
    model: str = field(default="", repr=False)

    @property
    def middle(self) -> float:
        """The middle of the window, in seconds since the first frame of the stream."""
        return (self.start + self.end) / 2

    @property
    def label(self) -> str | None:
        """The answer; None for "unknown"."""
        return None if self.unknown else self.top[0][0]

    @property
    def text(self) -> str:
        """The answer in words."""
        return _text(self.label, self.top[0][1])

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain JSON values, with its ``label``."""
        labels = [{"label": label, "probability": p} for label, p in self.top]
        return {"label": self.label, **vars(self), "top": labels, "delay": round(self.delay, 3)}


@dataclass(frozen=True, kw_only=True)
class Segment(Plain):
    """A stretch of time with one answer.

    Attributes:
        start: Seconds since the first frame of the stream.
        end: The same.
        label: The answer; None for "unknown".
        probability: Highest probability, averaged over the windows.
        windows: Number of windows.
    """

    start: float
    end: float
    label: str | None
    probability: float
    windows: int = 1

    @property
    def text(self) -> str:
        """The answer in words."""
        return _text(self.label, self.probability)


def _text(label: str | None, probability: float) -> str:
    # "unknown" gets no number: it would be the probability of a class that was rejected
    return "unknown" if label is None else f"{label} {probability:.0%}"


class Smoother:
    """Averages each answer with its neighbours, equally many before and after it.

    Probabilities are averaged. Without ``unknown_below`` the result is "unknown" if most of the answers are; with it,
    if no average reaches it. At the ends of a stretch without gaps there are fewer neighbours. Each answer is delayed
    by half the number of windows.

    Args:
        windows: Number of answers to average, odd.
        every: Seconds between the beginnings of consecutive windows if none is left out.
        unknown_below: Least average probability of an answer; None: the answers vote on "unknown".
    """

    def __init__(self, windows: int, *, every: float, unknown_below: float | None = None) -> None:
        if windows < 1 or windows % 2 == 0:
            raise UsageError(f"smooth is {windows}: expected an odd number of windows, such as 3; 1 averages nothing")
        self._half, self._every, self._least = windows // 2, every, unknown_below
        self._near: deque[Moment] = deque(maxlen=windows)
        self._waiting = 0  # how many of the last of these have not been returned yet

    def add(self, moment: Moment) -> list[Moment]:
        """Add the next answer; return the answers that now have all their neighbours, in order."""
        given = []
        if self._near and is_gap(self._near[-1], moment, self._every):
            given = self.rest()
            self._near.clear()
        self._near.append(moment)
        self._waiting += 1
        if self._waiting > self._half:
            given.append(self._average(self._near, self._near[-1 - self._half]))
            self._waiting -= 1
        return given

    def rest(self) -> list[Moment]:
        """Return the answers that were held back, when no more will follow."""
        held = list(self._near)
        places = range(len(held) - self._waiting, len(held))
        self._waiting = 0
        return [self._average(held[max(0, at - self._half) :], held[at]) for at in places]

    def _average(self, near: Collection[Moment], moment: Moment) -> Moment:
        chances: dict[str, float] = dict.fromkeys((label for label, _ in moment.top), 0.0)
        for each in near:
            for label, probability in each.top:
                chances[label] += probability / len(near)
        top = tuple(sorted(chances.items(), key=lambda pair: -pair[1]))
        most = 2 * sum(each.unknown for each in near) > len(near)
        return replace(moment, top=top, unknown=most if self._least is None else top[0][1] < self._least)


def is_gap(before: Moment, moment: Moment, every: float) -> bool:
    """Say whether there is an unexamined gap between two answers, because windows between them were left out."""
    return moment.start > before.end and moment.start - before.start > 1.001 * every


class Timeline:
    """Merges the answers of windows into segments.

    A window's answer applies to the time around its middle, up to half way to the middles of its neighbours; the first
    one from its beginning on, the last one up to its end. If windows were left out and there is a gap between two, one
    segment ends and another begins there, even if both have the same answer.

    Args:
        every: Seconds between the beginnings of consecutive windows if none is left out.
        keep: Whether to keep ``moments``, which only a picture needs: a stream may last for days.

    Attributes:
        windows: Number of answers.
        moments: The answers.
        segments: The segments so far, in order; the last one may still grow.
    """

    def __init__(self, *, every: float = 0.0, keep: bool = True) -> None:
        self._every, self._keep = every, keep
        self._last: Moment | None = None
        self.windows = 0
        self.moments: list[Moment] = []
        self.segments: list[Segment] = []

    def add(self, moment: Moment) -> Segment | None:
        """Add the next answer; if it begins a new segment, return the previous segment."""
        before, self._last = self._last or moment, moment
        self.windows += 1
        if self._keep:
            self.moments.append(moment)
        probability, border = moment.top[0][1], (before.middle + moment.middle) / 2
        new = Segment(start=moment.start, end=moment.end, label=moment.label, probability=probability)
        if not self.segments:
            self.segments.append(new)
            return None
        last = self.segments[-1]
        if is_gap(before, moment, self._every):
            self.segments.append(new)
            return last
        if last.label == new.label:
            mean = (last.probability * last.windows + probability) / (last.windows + 1)
            self.segments[-1] = replace(last, end=moment.end, probability=mean, windows=last.windows + 1)
            return None
        self.segments[-1] = replace(last, end=border)
        self.segments.append(replace(new, start=border))
        return self.segments[-2]


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds.

    Example:
        >>> clock(75.25), clock(3600)
        ('0:01:15.2', '1:00:00.0')
    """
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
