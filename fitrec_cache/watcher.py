"""Apply a trained head to a video while it plays: to a file or stream, or to frames that a program gives one by one."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.errors import FitrecError, UsageError, VideoError
from fitrec_cache.live.assembly import Assembly, WindowClip
from fitrec_cache.live.continued import Continued
from fitrec_cache.live.timeline import Moment
from fitrec_cache.live.windows import Windows
from fitrec_cache.recogniser import Recogniser, Seen

#: Limits of a window's length and of the time between windows, in seconds.
_SHORTEST, _LONGEST = 0.05, 3600.0

#: The greatest number of windows that wait to be answered; with a live stream, the oldest is then dropped.
_WAITING = 2

#: If a stream comes in segments, the windows of a segment of this length, in seconds, may wait in addition.
_SEGMENT = 12

#: Seconds before a lost source is opened again: at first, and at most, doubling each time in between.
_PAUSES = (1.0, 30.0)

#: A time given as a float may be this much too late; a frame on display at a sample's very time is that sample.
_LATE = Fraction(1, 10**6)

#: The largest side of a picture; JPEG has none larger.
_MOST_SIDE = 65_500


class Watch:
    """Applies a trained head to a video while it plays; iterate over it once, in a ``with`` block.

    Every window gets the answer that :func:`fitrec_cache.predict.predict` would give for the same part as a separate
    file: frames are sampled by the same rule and pass through the same JPEG, backbone and head. (On a processor up to
    rounding: a frame that two windows share is embedded once.) Frames are read in a separate thread. Any thread may end
    it with :meth:`stop`.

    Reading a file waits for the answers. With a live stream, windows that arrive faster than they are answered are
    skipped, so that answers are up to date.

    Args:
        source: A video file of any length, ``-`` (standard input), ``camera``, ``camera:N``, or a URL (``rtsp://...``).
        run: Run folder made by ``train-head``; its seeds answer together. Or an opened :class:`Recogniser`, which
            several may share, also in several threads; the arguments that it has are then left out here.
        backbone: ``NAME=WEIGHTS`` if the weights have moved since extraction.
        unknown_below: Answer "unknown" if no class has this probability; None for the thresholds of the run.
        seconds: Length of a window. None: the median length of the clips that the head was trained on.
        every: Seconds between the beginnings of consecutive windows. None: about half of ``seconds``, such that half of
            a window's frames are those of the window before, which are embedded only once.
        format: FFmpeg's input format for a device; see :func:`fitrec_cache.live.stream.find_source`.
        live: Whether to skip windows that arrive too fast; None: only for cameras and other devices, URLs that send at
            their own pace, and those that state neither a length nor a size.
        reconnect: Open a camera or live stream again whenever it ends or fails, until :meth:`stop`. The first time it
            must succeed.
        lost: Called in the reading thread, with the reason, when it is to be opened again.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Continue although the pipeline here differs from the one the head was trained with.

    Attributes:
        seconds: Length of a window.
        every: Seconds between the beginnings of consecutive windows.
        labels: The classes.
        may_be_unknown: Whether any window could be answered "unknown".
        name: The source, as found by :func:`fitrec_cache.live.stream.find_source`.
        live: Whether windows may be skipped; for a URL this is final only after it was opened.
        skipped: Number of windows skipped.
        answering: Seconds spent on answers so far.
        torn: Number of windows that reached into a gap or across a change of the picture: not answered.
        grew: Whether a file has grown since it was opened: what was added late may not have been read.
        rest: Seconds at the end, after the last window, that no window covers.
        missing: Seconds by which a file ends before its header says.
        damaged: Number of packets and frames so far that did not decode, or had an impossible time.
        reconnected: Number of times so far that it was opened again.
        offset: Seconds of a file before its first frame, with sound only.
        expected: Number of windows to expect according to a file's header; None until it is known, and for endless
            sources.

    Raises:
        UsageError: For wrong arguments, or if the length of the training clips is not known.
        VideoError: If the source cannot be opened or read, or ends before the first window does.
        MismatchError: If the pipeline would differ; it names each field, old -> new.
    """

    @plain_arguments
    def __init__(
        self,
        source: str,
        *,
        run: Path | Recogniser,
        backbone: Sequence[str] = (),
        unknown_below: float | None = None,
        seconds: float | None = None,
        every: float | None = None,
        format: str | None = None,
        live: bool | None = None,
        reconnect: bool = False,
        lost: Callable[[str], None] | None = None,
        device: str = "auto",
        force: bool = False,
    ) -> None:
        from fitrec_cache.live.stream import find_source

        found = find_source(source, format=format)
        if reconnect and found.local:
            raise UsageError(
                f"{source} is a file or pipe, which is read once: reconnect is for cameras and live streams"
            )
        self.name = found.name
        length, pace = _number("seconds", seconds), _number("every", every)  # before what takes seconds to load
        self._recogniser = _recogniser(run, backbone, unknown_below, device=device, force=force)
        self.labels, self.may_be_unknown = self._recogniser.labels, self._recogniser.may_be_unknown
        self._windows = _windows(self._recogniser, run, length, pace)
        self.seconds, self.every = float(self._windows.seconds), float(self._windows.every)
        self._asked = live
        self.live = found.live if live is None else live
        self._reconnect, self._lost = reconnect, lost
        self._continued, self._read_windows = Continued(self.every), 0
        self._opened = False
        self.reconnected = self.skipped = self.torn = 0
        self.answering, self.grew = 0.0, False
        self.rest = self.missing = self.offset = 0.0
        self.damaged = 0
        self.expected: int | None = None
        self._waiting: queue.Queue[Any] = queue.Queue(_WAITING)
        self._stop, self._done = threading.Event(), False
        self._reader = threading.Thread(target=self._read, args=[found], daemon=True)  # a camera may block forever

    def __enter__(self) -> Watch:
        if self._reader.ident is not None:
            raise UsageError("a Watch is entered twice: make one for each time")
        self._reader.start()
        return self

    def stop(self) -> None:
        """End the iteration within half a second, even if the source is silent; may be called from any thread."""
        self._stop.set()

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._reader.join(timeout=1)

    def __iter__(self) -> Iterator[Moment]:
        """Yield the answer to each window."""
        if self._reader.ident is None or self._done:
            raise UsageError("a Watch gives its answers once, inside `with Watch(...) as watching:`")
        self._done, expected = True, 0
        seen: Seen = {}
        while (item := self._next()) is not None:
            if isinstance(item, FitrecError):
                raise item
            number, clip = item
            started = time.monotonic()
            moment = _moment(self._recogniser, clip, seen, skipped=number - expected)
            self.answering += time.monotonic() - started
            expected = number + 1
            yield moment

    def _next(self) -> Any:
        while not self._stop.is_set():  # on some systems an endless wait could not be interrupted
            with contextlib.suppress(queue.Empty):
                return self._waiting.get(timeout=0.5)
            if not self._reader.is_alive() and self._waiting.empty():
                raise FitrecError("reading ended without a reason: the lines above say more")
        return None

    def _read(self, source: Any) -> None:
        """Put windows into the queue, then None, or the error that ended reading."""
        try:
            if self._reconnect:
                self._read_again_and_again(source)
            else:
                self._read_once(source)
            self._put(None)
        except FitrecError as error:
            self._put(error)

    def _read_again_and_again(self, source: Any) -> None:
        """Read a source until :meth:`stop`, opening it again whenever it ends or fails."""
        pause, before = _PAUSES[0], 0
        while not self._stop.is_set():
            try:
                self._read_once(source)
                reason = f"{source.shown} ended"
            except VideoError as error:
                if not self._opened:
                    raise
                reason = str(error)
            pause = _PAUSES[0] if self._read_windows > before else min(2 * pause, _PAUSES[1])
            before = self._read_windows
            if self._lost is not None and not self._stop.is_set():
                self._lost(reason)
            self._stop.wait(pause)

    def _read_once(self, source: Any) -> None:
        """Put the windows into the queue that come until a source ends."""
        from fitrec_cache.live.stream import Stream

        damaged, torn = self.damaged, self.torn  # of earlier connections
        with Stream(source, stopped=self._stop.is_set) as stream:
            if self._reconnect and not (source.live or stream.endless or self._opened):
                raise UsageError(f"{source.shown} has an end: reconnect is for cameras and live streams")
            self.reconnected += self._opened
            self._opened = True
            self._continued.lost()
            windows = replace(self._windows)  # a fresh copy, as it counts
            if stream.seconds is not None and not self._reconnect:
                self.expected = windows.within(stream.seconds)
            self.live = self.live or (self._asked is None and stream.endless)
            if stream.in_segments:
                self._waiting.maxsize = _WAITING + math.ceil(_SEGMENT / self.every)
            try:
                for clip in stream.windows(windows, self._recogniser.short_sides, live=self.live):
                    self.offset, self.damaged, self.torn = stream.offset, damaged + stream.damaged, torn + stream.torn
                    if (placed := self._continued.place(clip)) is not None:
                        self._put((self._read_windows, placed))
                        self._read_windows += 1
                    if self._stop.is_set():
                        return
            finally:
                self.rest, self.missing = stream.rest, stream.missing
                self.damaged, self.torn, self.grew = damaged + stream.damaged, torn + stream.torn, stream.grew

    def _put(self, item: Any) -> None:
        droppable = self.live and item is not None and not isinstance(item, FitrecError)
        while not self._stop.is_set():
            try:
                self._waiting.put(item, timeout=0 if droppable else 0.2)
                return
            except queue.Full:
                if droppable:
                    with contextlib.suppress(queue.Empty):  # it has just been taken
                        self._waiting.get_nowait()
                        self.skipped += 1


class FrameWatch:
    """Applies a trained head to frames that a program gives one by one, such as those of its own camera.

    Windows are made and answered as by :class:`Watch`, except that :meth:`add` answers before it returns.

    Args:
        run: As for :class:`Watch`, like the other arguments; the same errors are raised.
        backbone: ``NAME=WEIGHTS``.
        unknown_below: Least probability of an answer.
        seconds: Length of a window.
        every: Seconds between the beginnings of consecutive windows.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Continue although the pipeline here differs.

    Attributes:
        seconds: Length of a window.
        every: Seconds between the beginnings of consecutive windows.
        labels: The classes.
        may_be_unknown: Whether any window could be answered "unknown".
    """

    @plain_arguments
    def __init__(
        self,
        run: Path | Recogniser,
        *,
        backbone: Sequence[str] = (),
        unknown_below: float | None = None,
        seconds: float | None = None,
        every: float | None = None,
        device: str = "auto",
        force: bool = False,
    ) -> None:
        from fitrec_cache.video.video import Converter, rgb_frame

        length, pace = _number("seconds", seconds), _number("every", every)  # before what takes seconds to load
        self._recogniser = _recogniser(run, backbone, unknown_below, device=device, force=force)
        self._windows = _windows(self._recogniser, run, length, pace)
        self.seconds, self.every = float(self._windows.seconds), float(self._windows.every)
        self.labels, self.may_be_unknown = self._recogniser.labels, self._recogniser.may_be_unknown
        self._assembly = Assembly(self._windows, self._recogniser.short_sides)
        self._converters = {side: Converter(None, side) for side in self._recogniser.short_sides}
        self._as_frame = rgb_frame
        self._first: Fraction | None = None
        self._before: tuple[Fraction, NDArray[np.uint8]] | None = None
        self._step = Fraction(0)  # between the two frames before
        self._seen: Seen = {}

    def add(self, picture: NDArray[np.uint8], seconds: float) -> list[Moment]:
        """Add the next frame; return the answers to the windows that are complete now, mostly none.

        Args:
            picture: uint8 RGB ``(H, W, 3)``; it is reduced to the frames' size. It must not change afterwards.
            seconds: Its time on any clock, later than that of the frame before. Windows begin anew after a gap of more
                than a window and ten times the step before (in any case after one of more than ten windows), and where
                the size of the picture changes.

        Returns:
            Their times are counted from the first frame. Each takes as long as :class:`Recogniser` does.

        Raises:
            UsageError: If it is no such picture, or its time is not later.
            VideoError: If it is too large.
        """
        if not _is_picture(picture):
            got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise UsageError(f"picture is {got}: expected an array uint8 (H, W, 3), RGB, no side above {_MOST_SIDE}")
        now, before = _time(seconds), self._before
        if before is not None and now <= before[0]:
            raise UsageError(f"seconds is {seconds}: expected a later time than that of the frame before")
        self._before = now, picture
        if before is None or self._first is None:
            self._first = now
            return []
        step, until = now - before[0], now - self._first - _LATE
        gap = self._windows.is_gap(step, self._step)
        shown = before[0] + self._step - self._first - _LATE if gap else until
        self._step = min(step, self._windows.seconds)  # otherwise a gap would make longer ones usual
        try:
            clips = self._assembly.add(shown, partial(self._encode, before[1]))
        finally:
            if gap or picture.shape != before[1].shape:
                self._assembly.restart(until)
        return [_moment(self._recogniser, clip, self._seen) for clip in clips]

    def _encode(self, picture: NDArray[np.uint8]) -> dict[int, bytes]:
        from fitrec_cache.video.jpeg import encode_frame

        frame = self._as_frame(picture)
        return {side: encode_frame(converter.picture(frame)) for side, converter in self._converters.items()}


def _is_picture(value: object) -> bool:
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3:
        return False
    return bool(value.shape[2] == 3 and 0 < min(value.shape) <= max(value.shape) <= _MOST_SIDE)


def _time(seconds: Any) -> Fraction:
    try:
        return Fraction(float(seconds + 0))  # a text is no number
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"seconds is {seconds!r}: expected a time, a number") from error


def _recogniser(
    run: Path | Recogniser, backbone: Sequence[str], unknown_below: float | None, *, device: str, force: bool
) -> Recogniser:
    if not isinstance(run, Recogniser):
        return Recogniser(run, backbone=backbone, unknown_below=unknown_below, device=device, force=force)
    if backbone or unknown_below is not None or device != "auto" or force:
        raise UsageError("run is a Recogniser: give backbone, unknown_below, device and force to that one")
    return run


def _windows(recogniser: Recogniser, run: Path | Recogniser, length: Fraction | None, pace: Fraction | None) -> Windows:
    length = length or _number("seconds", recogniser.clip_seconds)
    if length is None:
        raise UsageError(f"{run} does not say how long its training clips were: give --seconds for a window")
    samples = recogniser.samples
    # A multiple of the time between two samples: then windows have frames in common.
    return Windows(seconds=length, every=pace or length * ((samples + 1) // 2) / (samples + 1), samples=samples)


def _moment(recogniser: Recogniser, clip: WindowClip, seen: Seen, *, skipped: int = 0) -> Moment:
    answer = recogniser(clip.jpegs, seen=seen)
    return Moment(
        start=clip.start,
        end=clip.end,
        top=answer.top,
        unknown=answer.unknown,
        heads=len(recogniser.runs),
        skipped=skipped,
        delay=time.monotonic() - clip.ready,
        model=recogniser.model,
    )


def _number(name: str, value: float | None) -> Fraction | None:
    """Return a number of seconds as an exact decimal fraction: 0.1 is a tenth; None if it is not given."""
    if value is None:
        return None
    if not _SHORTEST <= value <= _LONGEST:
        raise UsageError(f"{name} is {value}: expected {_SHORTEST} to {_LONGEST:g} seconds")
    return Fraction(str(value))
