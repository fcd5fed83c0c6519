"""Read a video from front to back while it comes: a file of any length, a camera, a stream from the network."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fitrec_cache.common.files import is_file, is_folder, is_there, with_home
from fitrec_cache.errors import UsageError, VideoError
from fitrec_cache.live.windows import Windows
from fitrec_cache.video.container import (
    FORGIVING,
    NO_VIDEO,
    ONE_FILE,
    SET_BACK,
    Damage,
    fraction,
    nominal_rate,
    sound_frames,
    video_stream,
)
from fitrec_cache.video.jpeg import encode_frame
from fitrec_cache.video.no_video import why_no_video
from fitrec_cache.video.truncation import is_cut
from fitrec_cache.video.video import Converter

#: A network that is silent for longer, in seconds, is given up: before it answers, and later, where segments of live
#: streams may be longer than 10 s.
SILENCE = (10.0, 30.0)

#: Schemes of what comes at its own pace, whether it is read or not.
_LIVE_SCHEMES = ("rtsp", "rtsps", "rtp", "rtmp", "rtmps", "udp", "tcp", "srt")

#: Formats that have no times, for which FFmpeg makes up 25 frames a second: live, the time of arrival counts.
_UNTIMED = ("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo")

#: A frame so much later than the one before may have a wrong time: the next one tells.
_LEAP_SECONDS = 10

#: A frame that stays for longer than this many of its usual periods, and than a window, is followed by a gap.
_STILL_PERIODS = 10

_CAMERA = re.compile(r"camera(?::(\d+))?")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """What to open.

    Attributes:
        name: A file, a device or an address, as FFmpeg takes it.
        format: FFmpeg's name of the input format; None where the content says it.
        live: Whether it comes at its own pace, so that what is not looked at in time is lost.
        options: FFmpeg's options.
    """

    name: str
    format: str | None = None
    live: bool = False
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class WindowClip:
    """The sampled frames of one window.

    Attributes:
        start: Seconds since the beginning of the stream (:meth:`Stream.windows`).
        end: The same.
        jpegs: By short side in pixels: T encoded frames.
    """

    start: float
    end: float
    jpegs: dict[int, list[bytes]]


def find_source(text: str, *, format: str | None = None) -> Source:
    """Return what a user means: a file, ``camera`` or ``camera:N``, or an address such as ``rtsp://...``.

    Args:
        text: As given.
        format: FFmpeg's input format for a device, such as ``x11grab``; then ``text`` goes to FFmpeg as it is.

    Raises:
        UsageError: If there is no such file, or cameras go by other names on this system.
    """
    if format is not None:
        return Source(text, format, live=True)
    text = with_home(text) if text.startswith("~/") else text
    if text.lower().startswith("file://"):
        text = re.sub(r"(?i)^localhost(?=/)", "", text[7:])
        text = text if is_there(text) else unquote(text)  # as file managers write them
    if camera := _CAMERA.fullmatch(text):
        number = camera[1] or "0"
        if sys.platform == "darwin":  # the default rate is one that many cameras refuse
            return Source(number, "avfoundation", live=True, options=(("framerate", "30"),))
        if sys.platform == "linux":
            return Source(f"/dev/video{number}", "v4l2", live=True)
        raise UsageError(f"{text}: cameras have names on this system: --format dshow 'video=NAME OF THE CAMERA'")
    if scheme := _SCHEME.match(text):
        return Source(text, live=scheme[1].lower() in _LIVE_SCHEMES)
    if is_folder(text):
        raise UsageError(f"{text} is a folder: give one video, or `fitrec-cache predict {text}` for all in it")
    if not is_there(text):
        raise UsageError(f"no such file: {text}. Expected a video, camera, camera:1, or an address such as rtsp://...")
    return Source(text)


def without_password(source: str) -> str:
    """Return an address without name, password and query, to be shown; a file's name as it is.

    Of RTMP, whose paths are keys, and of paths with settings in them only the computer's name is left.

    Example:
        >>> without_password("rtsp://me:secret@camera.local/1?token=secret")
        'rtsp://camera.local/1'
        >>> without_password("rtmp://camera.local/live/secret")
        'rtmp://camera.local/...'
    """
    scheme, between, rest = source.partition("://")
    user, _, where = rest.rpartition("@")  # passwords may hold "/" and "@"
    if "?" in user:  # a "?" in the password or an "@" in the query: that cannot be told
        where = ""
    if not between:
        return source
    shown = where.partition("?")[0]
    host, slash, path = shown.partition("/")
    secret = path and (scheme.lower().startswith("rtmp") or "=" in path)
    return scheme + between + (f"{host}{slash}..." if secret else shown)


class Stream:
    """An opened source; use as a context manager.

    Args:
        source: What :func:`find_source` returned.

    Attributes:
        rest: Seconds at the end that no window reached, once all windows were taken.
        missing: Seconds by which a file ends before its header says, then; 0 where it does not say.
        offset: Seconds of a file before the first frame, where its sound begins earlier; once that was read.

    Raises:
        VideoError: If it cannot be opened or has no moving pictures.
    """

    def __init__(self, source: Source) -> None:
        self.rest = self.missing = self.offset = 0.0
        self._earliest: float = math.inf  # time of a packet, in the stream's units
        self._damage, self._late = Damage(), 0
        self._source, self._shown = source, without_password(source.name)
        self._remote = bool(_SCHEME.match(source.name))
        self._local = not self._remote and source.format is None
        silence = SILENCE if self._remote else None
        # absolute: in front of a colon libav takes the name of a file for a protocol
        name = str(Path(source.name).absolute()) if self._local else source.name
        try:
            self._container = av.open(
                name,
                format=source.format,
                options=dict(source.options) | (ONE_FILE if self._local else {}),
                timeout=silence,
                **FORGIVING,
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._failed("opened", error) from error
        try:
            self._stream = video_stream(self._container)
        except BaseException:
            self._container.close()
            raise

    @property
    def seconds(self) -> float | None:
        """How long it is, as its header says; None of what has no end or does not say."""
        return None if self._container.duration is None else self._container.duration / av.time_base

    @property
    def endless(self) -> bool:
        """Whether it is an address that says neither how long nor how large it is, as of a live stream over HTTP."""
        sized = not self.in_segments and (self._container.size or 0) > 0  # that of segments is their list's
        return self._remote and self.seconds is None and not sized

    @property
    def in_segments(self) -> bool:
        """Whether seconds of it come at once, as by HLS and DASH."""
        return self._container.format.name in ("hls", "dash")

    @property
    def damaged(self) -> int:
        """Packets and frames so far that did not decode, or came with the time of an earlier one."""
        return self._damage.undecodable + self._damage.corrupt + self._late

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def _failed(self, what: str, error: Exception) -> VideoError:
        if isinstance(error, av.error.ExitError):  # PyAV's time limit
            return self._silent(SILENCE[what == "read on"])
        reason = getattr(error, "strerror", None) or str(error)
        hint = ": is there a camera, and may this program use it?" if self._source.format else ""
        path = Path(self._source.name)
        if self._local and what == "opened" and path.is_file() and (why := why_no_video(path)):
            return VideoError(f"{self._shown} cannot be opened: {why}")
        if self._local and isinstance(error, (av.error.InvalidDataError, av.error.ArgumentError)):
            if what == "opened":
                hint = f": {NO_VIDEO}"
            elif not path.is_file():
                hint = ": of what comes through a pipe, an MP4 file needs its index in front (-movflags faststart)"
        return VideoError(f"{self._shown} cannot be {what}: {reason}{hint}")

    def _silent(self, seconds: float) -> VideoError:
        return VideoError(f"{self._shown} sent nothing for {seconds:g} s")

    def windows(self, windows: Windows, short_sides: Sequence[int], *, live: bool = False) -> Iterator[WindowClip]:
        """Yield each window once its last frame is known.

        Times are since the first frame, of a file that was cut off in front since the first packet.

        Args:
            windows: Which frames each takes; those that would reach into a gap, where for longer than a window no frame
                comes, or beyond a seam, where the clock is set back or the picture changes its size or its turn, are
                left out.
            short_sides: Largest short sides in pixels; each frame is kept once for each of them.
            live: Whether it is taken as it comes: then of a stream that tells no times those of arrival count.

        Raises:
            VideoError: If reading fails, or the end comes before the first window's.
        """
        converters = {side: Converter(self._stream, side) for side in short_sides}
        growing: dict[int, list[dict[int, bytes]]] = {}
        complete, apart, end, stop = 0, False, Fraction(0), 0.0
        period = 1 / nominal_rate(self._stream)
        longest = max(windows.seconds, _STILL_PERIODS * period)
        for shown, (begins, frame, end, seam) in enumerate(self._on_display(live)):
            if not shown:  # a file that was cut off in front has no frames at first
                windows.restart(begins)
            gap = seam or end - begins > longest
            due = windows.due(begins + period if gap else end)
            kept = _encode(frame, converters) if due else {}
            for number, count in due.items():
                samples = growing.setdefault(number, [])
                samples += [kept] * count
                if len(samples) == windows.samples:
                    start, stop = windows.span(number)
                    frames = growing.pop(number)
                    jpegs = {side: [each[side] for each in frames] for side in short_sides}
                    complete += 1
                    yield WindowClip(start=start, end=stop, jpegs=jpegs)
            if gap:  # no window looks across it
                apart = True
                windows.restart(end)
                growing.clear()
        if not complete:
            what = "it has gaps or changes its picture: give other" if apart else "give fewer"
            raise VideoError(
                f"{self._shown} ends after {float(end):.1f} s, before a window of {float(windows.seconds):g} s "
                f"is full: {what} --seconds, or use predict"
            )
        self.rest = max(0.0, float(end) - stop)
        self.missing = max(0.0, self._lasts() - float(end))

    def _lasts(self) -> float:
        """Return how many seconds of pictures the header of a file claims whose end is cut off; else 0.

        Of a whole file the sound may last longer, the last picture stay, or an edit list hide some.
        """
        path, stream = Path(self._source.name), self._stream
        if self._remote or not path.is_file() or not is_cut(path):  # a pipe must not be opened again
            return 0.0
        if stream.duration is None:
            return (self.seconds or 0.0) - self.offset
        rate = fraction(stream.average_rate)
        counted = stream.frames / rate if rate else Fraction(0)  # AVI: duration shrinks
        return float(max(stream.duration * fraction(stream.time_base), counted))

    def _on_display(self, live: bool) -> Iterator[tuple[Fraction, VideoFrame, Fraction, bool]]:
        """Yield each frame with the times between which it is on display, and whether what follows is another picture.

        Times are since the first frame, or as :meth:`_zero` says. Frames that come with the time of an earlier one are
        left out; where all do, the clock was set back, as between recordings in one file, and time goes on from there.
        """
        before: tuple[Fraction, VideoFrame] | None = None
        period = 1 / nominal_rate(self._stream)
        origin, late, behind = Fraction(0), Fraction(0), 0
        for clock, frame in self._timed(live):
            seam = False
            if before is None:
                origin = self._zero(clock)
                if self.seconds is not None and self._container.start_time is not None:
                    self.offset = max(0.0, float(origin) - self._container.start_time / av.time_base)
            elif clock - origin <= before[0]:
                behind, late = (behind + 1 if clock > late else 1), clock
                if behind < SET_BACK:
                    self._late += 1
                    continue
                origin, seam = clock - before[0] - behind * period, True
            behind = 0
            if before is not None:
                yield *before, clock - origin, seam or _shape(frame) != _shape(before[1])
            before = clock - origin, frame
        if before is not None:
            yield *before, before[0] + period, False

    def _timed(self, live: bool) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Yield frames with their times as the stream has them; one alone far ahead of its neighbours is left out."""
        period = 1 / nominal_rate(self._stream)
        arrives = live and not is_file(self._source.name) and self._container.format.name in _UNTIMED
        before: Fraction | None = None
        held: tuple[Fraction, VideoFrame] | None = None  # that may be one
        clock = -period
        for frame in self._frames():
            clock = clock + period if frame.pts is None else frame.pts * fraction(frame.time_base)
            clock = Fraction(time.monotonic_ns(), 10**9) if arrives else clock
            if held is not None:
                if before is not None and before < clock < held[0]:
                    self._late += 1
                else:
                    yield held
                    before = held[0]
                held = None
            if before is not None and clock - before > _LEAP_SECONDS:
                held = clock, frame
            else:
                yield clock, frame
                before = clock
        if held is not None:
            yield held

    def _zero(self, first: Fraction) -> Fraction:
        """Return from when on time is counted: of a file as for its parts (:mod:`fitrec_cache.video.video`).

        That is the first packet's time, of which there is no frame where a file was cut off in front.
        """
        if self._remote or self._source.format is not None or not math.isfinite(self._earliest):
            return first
        return min(first, int(self._earliest) * fraction(self._stream.time_base))

    def _frames(self) -> Iterator[VideoFrame]:
        try:
            yield from sound_frames(self._stream.codec_context, self._packets(), self._damage)
        except (av.FFmpegError, OSError) as error:
            raise self._failed("read on", error) from error

    def _packets(self) -> Iterator[av.Packet[VideoStream]]:
        asked = time.monotonic()
        for packet in self._container.demux(self._stream):
            # Some protocols take silence for the end, which is a packet without content.
            if self._remote and not packet.size and time.monotonic() - asked > 0.9 * SILENCE[1]:
                raise self._silent(SILENCE[1])
            if packet.size and not packet.is_discard and packet.pts is not None:
                self._earliest = min(packet.pts, self._earliest)
            yield packet
            asked = time.monotonic()


def _shape(frame: VideoFrame) -> tuple[int, int, int]:
    """Return width and height of the coded picture, and how it is turned."""
    return frame.width, frame.height, frame.rotation


def _encode(frame: VideoFrame, converters: Mapping[int, Converter]) -> dict[int, bytes]:
    return {side: encode_frame(converter.picture(frame)) for side, converter in converters.items()}
