"""Recognise what happens while a video plays, window by window: a long file, a camera, a network stream."""

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
from fitrec_cache.live.timeline import Moment, Segment, Smoother, Timeline, clock
from fitrec_cache.live.timeline_files import WatchFiles
from fitrec_cache.live.windows import Windows
from fitrec_cache.recogniser import Recogniser
from fitrec_cache.wording import visible

#: Limits of a window's length and of the time between windows, in seconds.
_SHORTEST, _LONGEST = 0.05, 3600.0

#: Table and subtitles are also written at this interval, in seconds, in case of a power failure.
_SAVE_SECONDS = 60.0

#: The greatest number of windows that wait to be answered; with a live stream, the oldest is then dropped.
_WAITING = 2

#: If a stream comes in segments, the windows of a segment of this length, in seconds, may wait in addition.
_SEGMENT = 12


@dataclass(frozen=True, kw_only=True)
class WatchReport(Plain):
    """The result of :func:`watch`.

    Attributes:
        source: The source; a URL without user name, password and query.
        seconds: Length of a window.
        every: Seconds between the beginnings of consecutive windows.
        windows: Number of windows answered.
        skipped: Number of windows left out because they arrived faster than they were answered.
        rest: Seconds at the end of a file, after the last window, that no window covers.
        missing: Seconds by which a file ends before its header says.
        damaged: Number of packets and frames that did not decode, or had an impossible time.
        stopped: Whether Ctrl-C ended it before the end of a file.
        segments: The segments: what was recognised at which time.
        files: The files written; empty if one could not be written.
        error: Why reading failed; empty at a normal end and after Ctrl-C.
        unwritten: Why a file could not be written; empty if all were written.
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
    """Recognise what happens at which time, until the video or Ctrl-C ends it; the answers are kept in both cases.

    Args:
        source: See :class:`Watch`, also for the other arguments.
        run: Run folder made by ``train-head``.
        seconds: Length of a window.
        every: Seconds between the beginnings of consecutive windows.
        smooth: Average each answer over this many windows, an odd number; see
            :class:`fitrec_cache.live.timeline.Smoother`.
        backbone: ``NAME=WEIGHTS``.
        unknown_below: As for :func:`fitrec_cache.predict.predict`.
        table: CSV file for the segments; if the source is a file, it is also a manifest for ``extract``, to be
            corrected.
        subtitles: File for the segments as ``.srt`` subtitles.
        picture: PNG file for the probabilities over time.
        format: FFmpeg's input format for a device.
        live: Whether to skip windows that arrive too fast.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Continue although the pipeline here differs.
        progress: Show a progress bar with the latest answer on standard error.
        tell: Called with each answer, and with the preceding segment if the answer ends it.

    Returns:
        The segments, and the number of windows.

    Raises:
        UsageError: For wrong arguments, before anything is read.
        VideoError: If nothing could be answered: the source cannot be opened or read, or ends before the first window.
        MismatchError: If the pipeline would differ; it names each field, old -> new.
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
    ready: deque[Moment] = deque()  # answers to be passed on next
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
                with contextlib.suppress(StoreError):  # reported only when writing at the end fails
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
            except KeyboardInterrupt:  # the usual way to end a live stream
                stopped = True
            except VideoError as reason:  # many network streams end like this
                failed = reason
            take(smoother.rest())
            if failed is not None and not timeline.windows:
                raise failed
    except KeyboardInterrupt:
        pass  # a second Ctrl-C, while the last answers were passed on
    finally:
        for moment in (*ready, *smoother.rest()):
            timeline.add(moment)
        try:
            files.write(timeline, title=without_password(source), video=video, offset=watching.offset)
        except StoreError as reason:  # the answers are reported nevertheless
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
    """Applies a trained head to a video while it plays; iterate over it once, in a ``with`` block.

    Every window gets the answer that :func:`fitrec_cache.predict.predict` would give for the same part as a separate
    file: frames are sampled by the same rule and pass through the same JPEG, backbone and head. Frames are read in a
    separate thread. Any thread may end it with :meth:`stop`.

    Reading a file waits for the answers. With a live stream, windows that arrive faster than they are answered are
    skipped, so that answers are up to date.

    Args:
        source: A video file of any length, ``camera``, ``camera:N``, or a URL such as ``rtsp://...``.
        run: Run folder made by ``train-head``; its seeds answer together.
        backbone: ``NAME=WEIGHTS`` if the weights have moved since extraction.
        unknown_below: Answer "unknown" if no class has this probability; None for the thresholds of the run.
        seconds: Length of a window. None: the median length of the clips that the head was trained on.
        every: Seconds between the beginnings of consecutive windows; None for half of ``seconds``.
        format: FFmpeg's input format for a device; see :func:`fitrec_cache.live.stream.find_source`.
        live: Whether to skip windows that arrive too fast; None: only for cameras and other devices, URLs that send at
            their own pace, and those that state neither a length nor a size.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Continue although the pipeline here differs from the one the head was trained with.

    Attributes:
        seconds: Length of a window.
        every: Seconds between the beginnings of consecutive windows.
        may_be_unknown: Whether any window could be answered "unknown".
        name: The source, as found by :func:`fitrec_cache.live.stream.find_source`.
        live: Whether windows may be skipped; for a URL this is final only after it was opened.
        skipped: Number of windows skipped.
        rest: Seconds at the end, after the last window, that no window covers.
        missing: Seconds by which a file ends before its header says.
        damaged: Number of packets and frames so far that did not decode, or had an impossible time.
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
        while not self._stop.is_set():  # on some systems an endless wait could not be interrupted
            with contextlib.suppress(queue.Empty):
                return self._waiting.get(timeout=0.5)
            if not self._reader.is_alive() and self._waiting.empty():
                raise FitrecError("reading ended without a reason: the lines above say more")
        return None

    def _read(self, source: Any) -> None:
        """Put windows into the queue, then None, or the error that ended reading."""
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
                    with contextlib.suppress(queue.Empty):  # it has just been taken
                        self._waiting.get_nowait()
                        self.skipped += 1


def _number(name: str, value: float) -> Fraction:
    """Return a number of seconds as an exact decimal fraction: 0.1 is a tenth."""
    if not _SHORTEST <= value <= _LONGEST:
        raise UsageError(f"{name} is {value}: expected {_SHORTEST} to {_LONGEST:g} seconds")
    return Fraction(str(value))
