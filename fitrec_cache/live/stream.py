"""Read a video from beginning to end while it arrives: a file of any length, a camera, or a network stream."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fitrec_cache.common.files import is_file, is_folder, is_there, with_home
from fitrec_cache.errors import UsageError, VideoError
from fitrec_cache.live.assembly import Assembly, WindowClip
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
from fitrec_cache.wording import command

#: The longest time, in seconds, that a network source may be silent: before it answers, and later. The second is longer
#: because the segments of live streams may be longer than 10 s.
SILENCE = (10.0, 30.0)

#: URL schemes of live sources, which send at their own pace whether they are read or not.
_LIVE_SCHEMES = ("rtsp", "rtsps", "rtp", "rtmp", "rtmps", "udp", "tcp", "srt")

#: Formats without time stamps, for which FFmpeg assumes 25 frames per second; for live sources, arrival times are used.
_UNTIMED = ("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo")

#: A frame that is this much later than the one before may have a wrong time; the next frame decides.
_LEAP_SECONDS = 10

_CAMERA = re.compile(r"camera(?::(\d+))?")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A source to open.

    Attributes:
        name: A file, a device or an address, in FFmpeg's notation.
        format: FFmpeg's name of the input format; None to detect it from the content.
        live: Whether it sends at its own pace, so that frames not read in time are lost.
        options: Options for FFmpeg.
    """

    name: str
    format: str | None = None
    live: bool = False
    options: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> str:
        """Its name for display."""
        return without_password(self.name)

    @property
    def remote(self) -> bool:
        """Whether it is a URL."""
        return bool(_SCHEME.match(self.name))

    @property
    def local(self) -> bool:
        """Whether it is a file or pipe."""
        return not self.remote and self.format is None


def find_source(text: str, *, format: str | None = None) -> Source:
    """Return the source of a text: a file, ``-`` (standard input), ``camera``, ``camera:N``, or a URL (``rtsp://...``).

    Args:
        text: The text as given.
        format: FFmpeg's input format for a device, such as ``x11grab``; then ``text`` is passed to FFmpeg unchanged.

    Raises:
        UsageError: If there is no such file, or cameras have other names on this system.
    """
    if format is not None:
        return Source(text, format, live=True)
    text = "/dev/stdin" if text == "-" else with_home(text) if text.startswith("~/") else text
    if text.lower().startswith("file://"):
        text = re.sub(r"(?i)^localhost(?=/)", "", text[7:])
        text = text if is_there(text) else unquote(text)  # file managers percent-encode such URLs
    if camera := _CAMERA.fullmatch(text):
        number = camera[1] or "0"
        if sys.platform == "darwin":  # many cameras refuse the default rate
            return Source(number, "avfoundation", live=True, options=(("framerate", "30"),))
        if sys.platform == "linux":
            return Source(f"/dev/video{number}", "v4l2", live=True)
        raise UsageError(f"{text}: cameras have numbers on Linux and macOS only: give --format and FFmpeg's name")
    if scheme := _SCHEME.match(text):
        return Source(text, live=scheme[1].lower() in _LIVE_SCHEMES)
    if is_folder(text):
        whole = command("predict", text, run="RUN")
        raise UsageError(f"{text} is a folder: give one video, or `{whole}` for all in it")
    if not is_there(text):
        raise UsageError(f"no such file: {text}. Expected a video, camera, camera:1, or an address such as rtsp://...")
    return Source(text)


def without_password(source: str) -> str:
    """Return an address for display, without user name, password and query; a file's name is returned unchanged.

    For RTMP, whose paths are secret keys, and for paths that contain settings, only the host name is kept.

    Example:
        >>> without_password("rtsp://me:secret@camera.local/1?token=secret")
        'rtsp://camera.local/1'
        >>> without_password("rtmp://camera.local/live/secret")
        'rtmp://camera.local/...'
    """
    scheme, between, rest = source.partition("://")
    user, _, where = rest.rpartition("@")  # passwords may contain "/" and "@"
    if "?" in user:  # a "?" in the password or an "@" in the query: these cannot be told apart
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
        source: The source that :func:`find_source` returned.
        stopped: Says, for each packet, whether to read no further; then reading ends with a VideoError.

    Attributes:
        rest: Seconds at the end that no window covers; known after all windows have been read.
        missing: Seconds by which a file ends before its header says; known then, too; 0 if it does not say.
        offset: Seconds of a file before its first frame, if the sound begins earlier; known after the first frame.
        torn: Number of windows so far that reach into a gap or beyond a seam.
        grew: Whether a file is larger at the end than when it was opened.

    Raises:
        VideoError: If it cannot be opened or has no video stream.
    """

    def __init__(self, source: Source, *, stopped: Callable[[], bool] = lambda: False) -> None:
        self._stopped = stopped
        self.rest = self.missing = self.offset = 0.0
        self.torn, self.grew = 0, False
        self._earliest: float = math.inf  # time of a packet, in the stream's units
        self._damage, self._misplaced = Damage(), 0
        self._source, self._shown, self._remote, self._local = source, source.shown, source.remote, source.local
        silence = SILENCE if self._remote else None
        # an absolute path, because libav takes the part of a file name before a colon for a protocol
        name = str(Path(source.name).absolute()) if self._local else source.name
        self._size = _size(source.name) if self._local else 0
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
        """Its length in seconds according to its header; None if it is endless or does not say."""
        return None if self._container.duration is None else self._container.duration / av.time_base

    @property
    def endless(self) -> bool:
        """Whether it is a URL that states neither a length nor a size, such as a live stream over HTTP."""
        sized = not self.in_segments and (self._container.size or 0) > 0  # with segments it is the playlist's size
        return self._remote and self.seconds is None and not sized

    @property
    def in_segments(self) -> bool:
        """Whether it arrives in segments of several seconds, as with HLS and DASH."""
        return self._container.format.name in ("hls", "dash")

    @property
    def damaged(self) -> int:
        """Number of packets and frames so far that did not decode, or were left out because of an impossible time."""
        return self._damage.undecodable + self._damage.corrupt + self._misplaced

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def _failed(self, what: str, error: Exception) -> VideoError:
        if isinstance(error, av.error.ExitError):  # PyAV's time limit
            return self._silent(SILENCE[1 if what == "read on" else 0])
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
        """Yield each window as soon as its last frame is known.

        Times are counted from the first frame; for a file whose beginning was cut off, from the first packet.

        Args:
            windows: Determines the frames of each window. Left out are windows that reach into a gap (longer than a
                window without a frame) or beyond a seam (the clock is set back, or the picture's size or rotation
                changes).
            short_sides: Largest short sides in pixels; each frame is encoded once for each of them.
            live: Whether the source is read as it arrives; if it has no time stamps, arrival times are then used.

        Raises:
            VideoError: If reading fails, or the source ends before the end of the first window.
        """
        converters = {side: Converter(self._stream, side) for side in short_sides}
        assembly, apart, end = Assembly(windows, short_sides), False, Fraction(0)
        period = 1 / nominal_rate(self._stream)
        for shown, (begins, frame, end, seam) in enumerate(self._on_display(live)):
            if not shown:  # a file whose beginning was cut off has no frames at first
                assembly.restart(begins)
            gap = seam or windows.is_gap(end - begins, period)
            yield from assembly.add(begins + period if gap else end, partial(_encode, frame, converters))
            if gap:  # no window may span it
                apart = True
                assembly.restart(end)
                self.torn = assembly.torn
        if not assembly.complete:
            what = "it has gaps or changes its picture: give other" if apart else "give fewer"
            raise VideoError(
                f"{self._shown} ends after {float(end):.1f} s, before a window of {float(windows.seconds):g} s "
                f"is full: {what} --seconds, or use predict"
            )
        self.rest = max(0.0, float(end) - assembly.stop)
        self.grew = self._local and self._size < _size(self._source.name)
        self.missing = max(0.0, self._lasts() - float(end))

    def _lasts(self) -> float:
        """Return the seconds of video that the header of a truncated file claims; 0 for any other source.

        In a complete file the sound may last longer, the last picture may stay, or an edit list may hide some frames.
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
        """Yield each frame with the start and end of its display, and whether a seam follows it.

        Times are counted from :meth:`_zero`. Frames with the time of an earlier one are left out. If SET_BACK of these
        follow each other, the clock was set back, as between recordings in one file, and time continues from there.
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
                    self._misplaced += 1
                    continue
                origin, seam = clock - before[0] - behind * period, True
            behind = 0
            if before is not None:
                yield *before, clock - origin, seam or _shape(frame) != _shape(before[1])
            before = clock - origin, frame
        if before is not None:
            yield *before, before[0] + period, False

    def _timed(self, live: bool) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Yield frames with the stream's times; a single frame far ahead of its neighbours is left out."""
        period = 1 / nominal_rate(self._stream)
        arrives = live and not is_file(self._source.name) and self._container.format.name in _UNTIMED
        before: Fraction | None = None
        held: tuple[Fraction, VideoFrame] | None = None  # a frame that may be too far ahead
        clock = -period
        for frame in self._frames():
            clock = clock + period if frame.pts is None else frame.pts * fraction(frame.time_base)
            clock = Fraction(time.monotonic_ns(), 10**9) if arrives else clock
            if held is not None:
                if before is not None and before < clock < held[0]:
                    self._misplaced += 1
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
        """Return the time from which times are counted; in a file as for its parts (:mod:`fitrec_cache.video.video`).

        That is the first packet's time, which may have no frame if the beginning of a file was cut off.
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
        # Of a network source all packets: sound that goes on would hide that there are no more pictures.
        for packet in self._container.demux(*([] if self._remote else [self._stream])):
            if self._stopped():
                raise VideoError(f"reading {self._shown} was stopped")
            # Some protocols treat silence as the end of the stream, which arrives as an empty packet.
            silent = time.monotonic() - asked > (1 if packet.size else 0.9) * SILENCE[1]
            ours = packet.stream.index == self._stream.index  # stream_index is 0 for all empty packets
            if self._remote and silent and not (ours and packet.size):
                raise self._silent(SILENCE[1])
            if not ours:
                continue
            if packet.size and not packet.is_discard and packet.pts is not None:
                self._earliest = min(packet.pts, self._earliest)
            yield packet
            asked = time.monotonic()


def _size(name: str) -> int:
    """Return the size of a file in bytes; 0 if it is no file, such as a pipe."""
    return Path(name).stat().st_size if is_file(Path(name)) else 0


def _shape(frame: VideoFrame) -> tuple[int, int, int]:
    """Return width and height of the coded picture, and its rotation."""
    return frame.width, frame.height, frame.rotation


def _encode(frame: VideoFrame, converters: Mapping[int, Converter]) -> dict[int, bytes]:
    return {side: encode_frame(converter.picture(frame)) for side, converter in converters.items()}
