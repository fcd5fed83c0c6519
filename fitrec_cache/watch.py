"""Recognise what happens while a video plays, window by window: a long file, a camera, a network stream."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fitrec_cache.common.arguments import plain_arguments
from fitrec_cache.common.files import Plain
from fitrec_cache.common.progress import progress_bar
from fitrec_cache.errors import StoreError, VideoError, earlier
from fitrec_cache.live.timeline import Moment, Segment, Smoother, Timeline, clock
from fitrec_cache.live.timeline_files import WatchFiles
from fitrec_cache.watcher import Watch
from fitrec_cache.wording import visible

#: Table and subtitles are also written at this interval, in seconds, in case of a power failure.
_SAVE_SECONDS = 60.0


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
        answer_seconds: Mean time that an answer took.
        torn: Number of windows that reached into a gap or across a change of the picture: not answered.
        grew: Whether a file grew while it was read: what was added late may not have been read.
        reconnected: Number of times that it was opened again.
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
    answer_seconds: float = 0.0
    torn: int = 0
    grew: bool = False
    reconnected: int = 0


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
    reconnect: bool = False,
    device: str = "auto",
    force: bool = False,
    progress: bool = False,
    tell: Callable[[Moment, Segment | None], None] | None = None,
    lost: Callable[[str], None] | None = None,
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
        reconnect: Open a camera or live stream again whenever it ends or fails, until Ctrl-C.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        force: Continue although the pipeline here differs.
        progress: Show a progress bar with the latest answer on standard error.
        tell: Called with each answer, and with the preceding segment if the answer ends it.
        lost: Called in the reading thread, with the reason, when the source is to be opened again.

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
        reconnect=reconnect,
        lost=lost,
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
                # Only where a segment ends is anything likely to be printed, and then the bar, too, is printed again.
                with contextlib.nullcontext() if ended is None else bar.external_write_mode(file=sys.stdout):
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
            unwritten = "; ".join([*earlier(reason), str(reason)])
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
        answer_seconds=watching.answering / max(1, timeline.windows),
        torn=watching.torn,
        grew=watching.grew,
        reconnected=watching.reconnected,
    )
