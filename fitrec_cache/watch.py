"""Recognise what is done while a video goes on, window after window: a long file, a camera, a network stream."""

from __future__ import annotations

import contextlib
import math
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import Plain
from fitrec_cache.common.progress import progress_bar
from fitrec_cache.errors import FitrecError, StoreError, UsageError, VideoError
from fitrec_cache.live.timeline import Moment, Segment, Smoother, Timeline, WatchFiles, clock
from fitrec_cache.live.windows import Windows
from fitrec_cache.predict import Recogniser
from fitrec_cache.wording import visible

#: Limits of a window's length and of the time to the next, in seconds.
_SHORTEST, _LONGEST = 0.05, 3600.0

#: Table and subtitles are written once in so many seconds, too, against a loss of power.
_SAVE_SECONDS = 60.0

#: Windows that wait to be answered, at most: of a live stream the oldest makes room.
_WAITING = 2

#: Where a stream comes in segments, those of one more so long, in seconds.
_SEGMENT = 12


@dataclass(frozen=True, kw_only=True)
class WatchReport(Plain):
    """What :func:`watch` saw.

    Attributes:
        source: What was watched; of an address without name, password and query.
        seconds: Length of a window.
        every: Seconds from one to the next.
        windows: Number of windows answered.
        skipped: Number of windows that came faster than they were answered.
        rest: Seconds at the end of a file, after the last window, that are in none.
        missing: Seconds by which a file ends before its header says.
        damaged: Packets and frames that did not decode, or came with the time of an earlier one.
        stopped: Whether Ctrl-C ended it before the end of a file.
        segments: What was done when.
        files: Files written; none is named where one could not be.
        error: Why it could not be read on; empty at a normal end and after Ctrl-C.
        unwritten: Why a file could not be written; empty if all were.
        may_be_unknown: Whether any window could be answered "unknown".
    """

    source: str
    seconds: float
    every: float
    windows: int
    skipped: int
    rest: float
    missing: float
    damaged: int
    stopped: bool
    segments: tuple[Segment, ...]
    files: tuple[str, ...]
    error: str
    unwritten: str
    may_be_unknown: bool = True


@plain_arguments
def watch(
    source: str,
    *,
    run: Path,
    seconds: float | None = None,
    every: float | None = None,
    smooth: int = 1,
    backbone: Sequence[str] = (),
    unknown_below: float | None = None,
    table: Path | None = None,
    subtitles: Path | None = None,
    picture: Path | None = None,
    format: str | None = None,
    live: bool | None = None,
    device: str = "auto",
    force: bool = False,
    progress: bool = False,
    tell: Callable[[Moment, Segment | None], None] | None = None,
) -> WatchReport:
    """Recognise what is done when, until the video ends or Ctrl-C ends it; what was answered is kept either way.

    Args:
        source: As for :class:`Watch`, and so are the arguments that are not named here.
        run: Run folder that ``train-head`` made.
        seconds: Length of a window.
        every: Seconds from one window's beginning to the next.
        smooth: Average each answer over so many windows, an odd number; see
            :class:`fitrec_cache.live.timeline.Smoother`.
        backbone: ``NAME=WEIGHTS``.
        unknown_below: As for :func:`fitrec_cache.predict.predict`.
        table: CSV to write of the segments; of a file it is a manifest for ``extract``, too, to be corrected.
        subtitles: The segments as ``.srt``.
        picture: PNG of the probabilities over time.
        format: FFmpeg's input format for a device.
        live: Whether to skip what comes too fast.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Go on where the pipeline here differs.
        progress: Show a progress bar with the latest answer on standard error.
        tell: Called with each answer as it is given, and with the segment before it if it ends one.

    Returns:
        The segments, and how many windows there were.

    Raises:
        UsageError: For wrong arguments, before anything is read.
        VideoError: If nothing could be answered: the source cannot be opened or read, or ends before the first window.
        MismatchError: If the pipeline would differ, naming each field, old -> new.
    """
    from fitrec_cache.live.stream import without_password

    files = WatchFiles(table=table, subtitles=subtitles, picture=picture)
    watching = Watch(
        source,
        run=run,
        backbone=backbone,
        unknown_below=unknown_below,
        seconds=seconds,
        every=every,
        format=format,
        live=live,
        device=device,
        force=force,
    )
    video = path if not watching.live and (path := Path(watching.name)).is_file() else None
    timeline = Timeline(every=watching.every, keep=picture is not None)
    smoother = Smoother(smooth, every=watching.every, unknown_below=unknown_below)
    bar = progress_bar(total=None, unit="window", what="watch", show=progress)
    ready: deque[Moment] = deque()  # answers that are next
    failed: VideoError | None = None
    unwritten = ""
    stopped = False
    written = time.monotonic()

    def take(moments: Iterable[Moment]) -> None:
        nonlocal written
        ready.extend(moments)
        while ready:
            moment = ready.popleft()
            ended = timeline.add(moment)
            if time.monotonic() - written > _SAVE_SECONDS:
                with contextlib.suppress(StoreError):  # the last time it counts
                    files.write_texts(timeline, video=video, offset=watching.offset)
                written = time.monotonic()
            if tell is not None:
                with bar.external_write_mode(file=sys.stdout):
                    tell(moment, ended)
            bar.total = watching.expected
            bar.set_postfix_str(visible(f"{clock(moment.end)} {moment.text}"), refresh=False)
            bar.update()

    try:
        with watching, bar:
            try:
                for answer in watching:
                    take(smoother.add(answer))
            except KeyboardInterrupt:  # the way to end a live stream
                stopped = True
            except VideoError as reason:  # the way in which many a network stream ends
                failed = reason
            take(smoother.rest())
            if failed is not None and not timeline.windows:
                raise failed
    except KeyboardInterrupt:
        pass  # once more, while the last answers were told
    finally:
        for moment in (*ready, *smoother.rest()):
            timeline.add(moment)
        try:
            files.write(timeline, title=without_password(source), video=video, offset=watching.offset)
        except StoreError as reason:  # what was answered is told all the same
            unwritten = str(reason)
    if stopped and not timeline.windows:
        raise KeyboardInterrupt
    return WatchReport(
        source=without_password(source),
        seconds=watching.seconds,
        every=watching.every,
        windows=timeline.windows,
        skipped=watching.skipped,
        rest=watching.rest,
        missing=watching.missing,
        damaged=watching.damaged,
        stopped=stopped and not watching.live,
        segments=tuple(timeline.segments),
        files=tuple(str(path) for path in files.paths if timeline.segments and not unwritten),
        error="" if failed is None else str(failed),
        unwritten=unwritten,
        may_be_unknown=watching.may_be_unknown,
    )


class Watch:
    """A trained head that looks at a video as it goes on; iterate over it once, in a ``with`` block.

    Every window is answered as :func:`fitrec_cache.predict.predict` answers the same piece as a file of its own: with
    frames sampled by the same rule, through the same JPEG, backbone and head. Frames are read in a thread of their own.
    Any thread may end it by :meth:`stop`.
    A file waits until it is answered; of a live stream, windows that come faster than they are answered are skipped, so
    that answers are about now.

    Args:
        source: A video file of any length, ``camera``, ``camera:N``, or an address such as ``rtsp://...``.
        run: Run folder that ``train-head`` made; its seeds answer together.
        backbone: ``NAME=WEIGHTS`` where weights are no longer where they were at extraction.
        unknown_below: Answer "unknown" where no class has this probability; None for the thresholds of the run.
        seconds: Length of a window. None: the median length of the clips that the head was trained on.
        every: Seconds from one window's beginning to the next; None for half of ``seconds``.
        format: FFmpeg's input format for a device; see :func:`fitrec_cache.live.stream.find_source`.
        live: Whether to skip what comes too fast; None: for cameras, addresses that send at their own pace, and those
            that say neither how long nor how large they are.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Go on where the pipeline here differs from the one the head was trained with.

    Attributes:
        seconds: Length of a window.
        every: Seconds from one to the next.
        may_be_unknown: Whether any window could be answered "unknown".
        name: The source, as :func:`fitrec_cache.live.stream.find_source` found it.
        live: Whether windows may be skipped; of an address this is sure once it was opened.
        skipped: How many were.
        rest: Seconds at the end, after the last window, that are in none.
        missing: Seconds by which a file ends before its header says.
        damaged: Packets and frames so far that did not decode, or came with the time of an earlier one.
        offset: Seconds of a file before its first frame, in which there is only sound.
        expected: How many windows there will be, as the header of a file lets expect; None until that is known, and of
            what has no end.

    Raises:
        UsageError: For wrong arguments, or if the length of the training clips is not known.
        VideoError: If the source cannot be opened or read, or ends before the first window does.
        MismatchError: If the pipeline would differ, naming each field, old -> new.
    """

    @plain_arguments
    def __init__(
        self,
        source: str,
        *,
        run: Path,
        backbone: Sequence[str] = (),
        unknown_below: float | None = None,
        seconds: float | None = None,
        every: float | None = None,
        format: str | None = None,
        live: bool | None = None,
        device: str = "auto",
        force: bool = False,
    ) -> None:
        from fitrec_cache.live.stream import find_source

        found = find_source(source, format=format)
        self.name = found.name
        self._recogniser = Recogniser(run, backbone=backbone, unknown_below=unknown_below, device=device, force=force)
        self.may_be_unknown = self._recogniser.may_be_unknown
        if seconds is None:
            seconds = self._recogniser.clip_seconds
        if seconds is None:
            raise UsageError(f"{run} does not say how long its training clips were: give --seconds for a window")
        length = _number("seconds", seconds)
        pace = length / 2 if every is None else _number("every", every)
        self._windows = Windows(seconds=length, every=pace, samples=self._recogniser.samples)
        self.seconds, self.every = float(length), float(pace)
        self._asked = live
        self.live = found.live if live is None else live
        self.skipped = 0
        self.rest = self.missing = self.offset = 0.0
        self.damaged = 0
        self.expected: int | None = None
        self._waiting: queue.Queue[Any] = queue.Queue(_WAITING)
        self._stop, self._done = threading.Event(), False
        self._reader = threading.Thread(target=self._read, args=[found], daemon=True)  # a camera may never answer

    def __enter__(self) -> Watch:
        if self._reader.ident is not None:
            raise UsageError("a Watch is entered twice: make one for each time")
        self._reader.start()
        return self

    def stop(self) -> None:
        """End the answers, within half a second, also where the source is silent; any thread may ask for it."""
        self._stop.set()

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._reader.join(timeout=1)

    def __iter__(self) -> Iterator[Moment]:
        """Yield the answer to each window."""
        if self._reader.ident is None or self._done:
            raise UsageError("a Watch gives its answers once, inside `with Watch(...) as watching:`")
        self._done, expected = True, 0
        while (item := self._next()) is not None:
            if isinstance(item, FitrecError):
                raise item
            number, clip = item
            answer = self._recogniser(clip.jpegs)
            skipped, expected = number - expected, number + 1
            yield Moment(
                start=clip.start,
                end=clip.end,
                top=answer.top,
                unknown=answer.unknown,
                heads=len(self._recogniser.runs),
                skipped=skipped,
            )

    def _next(self) -> Any:
        while not self._stop.is_set():  # a wait without end could not be interrupted on every system
            with contextlib.suppress(queue.Empty):
                return self._waiting.get(timeout=0.5)
            if not self._reader.is_alive() and self._waiting.empty():
                raise FitrecError("reading ended without a reason: the lines above say more")
        return None

    def _read(self, source: Any) -> None:
        """Put windows into the queue, then None, or the error that ended it."""
        from fitrec_cache.live.stream import Stream

        try:
            with Stream(source) as stream:
                if stream.seconds is not None:
                    self.expected = self._windows.within(stream.seconds)
                self.live = self.live or (self._asked is None and stream.endless)
                if stream.in_segments:
                    self._waiting.maxsize += math.ceil(_SEGMENT / self.every)
                try:
                    found = stream.windows(self._windows, self._recogniser.short_sides, live=self.live)
                    for numbered in enumerate(found):
                        self.offset, self.damaged = stream.offset, stream.damaged
                        self._put(numbered)
                        if self._stop.is_set():
                            return
                finally:
                    self.rest, self.missing, self.damaged = stream.rest, stream.missing, stream.damaged
            self._put(None)
        except FitrecError as error:
            self._put(error)

    def _put(self, item: Any) -> None:
        droppable = self.live and item is not None and not isinstance(item, FitrecError)
        while not self._stop.is_set():
            try:
                self._waiting.put(item, timeout=0 if droppable else 0.2)
                return
            except queue.Full:
                if droppable:
                    with contextlib.suppress(queue.Empty):  # taken just now
                        self._waiting.get_nowait()
                        self.skipped += 1


def _number(name: str, value: float) -> Fraction:
    """Return a number of seconds as it is written: 0.1 is a tenth."""
    if not _SHORTEST <= value <= _LONGEST:
        raise UsageError(f"{name} is {value}: expected {_SHORTEST} to {_LONGEST:g} seconds")
    return Fraction(str(value))
