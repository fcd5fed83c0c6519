"""An opened video file: its video stream and its packets. Only this, ``video.video`` and ``live.stream`` use PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import dropwhile
from pathlib import Path
from typing import Any, cast

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fitrec_cache.common.files import Stamp
from fitrec_cache.errors import VideoError
from fitrec_cache.video.contents import opened_video
from fitrec_cache.video.keyframes import Note, packet_reader
from fitrec_cache.video.no_video import EMPTY, why_no_video
from fitrec_cache.video.truncation import is_cut

#: Options of PyAV that keep metadata in a wrong encoding from failing a video. Since version 19 such metadata never
#: does, and the option no longer exists.
FORGIVING: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}

#: The formats and protocols that FFmpeg may use. Not allowed are playlists and stream descriptions: they would make it
#: open other files or the network, and the file's hash would not identify the pictures.
ONE_FILE = {
    "format_whitelist": "apng,asf,av1,avi,avs2,cavsvideo,dhav,dirac,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,"
    "matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,swf,vc1,vvc,webm,wtv,yuv4mpegpipe",
    "protocol_whitelist": "file",
}

#: The packets of files up to this size, in bytes, are kept in memory between counting and decoding.
KEPT_BYTES = 64_000_000

#: The reason given for refusing a file that opens as none of these.
NO_VIDEO = "not a video by its content, of an unsupported kind, or not completely written"

#: The greatest number of pixels in a frame; a header that claims more would make the decoder allocate too much memory.
LARGEST = 8192 * 8192

#: Transfer characteristics by their number: ITU-T H.273, table 3.
_HIGH_RANGE = {16: "PQ", 18: "HLG"}


def decoder_version() -> str:
    """Return the versions of the libraries that determine the pixels of a decoded frame."""
    parts = ("libavcodec", "libavformat", "libswscale")
    return ", ".join(f"{p} {'.'.join(map(str, av.library_versions[p]))}" for p in parts)


def library_version() -> str:
    """Return the version of PyAV and of the FFmpeg in it."""
    codecs = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"{av.__version__} with FFmpeg {av.ffmpeg_version_info} (libavcodec {codecs})"


#: If this many frames in a row have earlier times than a frame before them, the clock was set back: it is more than a
#: decoder holds back to reorder frames.
SET_BACK = 17


@dataclass
class Listing:
    """The non-empty packets of a file, in decoding order.

    Attributes:
        pts: Presentation time of each packet, in the stream's units; None if the container does not say.
        n_hidden: Number of further packets that are only needed to decode others: an edit list hides what precedes a
            cut.
        cut_short: Why reading ended early, or that the file is truncated; empty if neither.
        notes: Notes on all packets; None as long as the packets are in memory and no notes were needed.
    """

    pts: list[int | None]
    n_hidden: int
    cut_short: str
    notes: list[Note] | None


class Video:
    """A video file whose packets have been read once, without decoding; use as a context manager.

    Args:
        path: The file.
        listing: The listing of its packets, if they were read before.

    Attributes:
        path: The file.
        stream: The video stream that a player shows.
        number: Which of the video streams that is, from 1; cover art does not count.
        n_streams: Number of video streams.
        description: Container, codec and geometry, for the ledger.
        listing: The listing of its packets.
        claimed: Number of frames that the header claims, without hidden ones; 0 if it does not say.
        lasts: Duration that the container claims, in seconds; 0 if it does not say.
        time_base: The unit of its packets' times, in seconds.
        rate: Nominal number of frames per second.
        high_range: ``PQ`` or ``HLG`` if brightness is coded for high dynamic range, else empty.
        cut_short: Why reading ended early, or that the file is truncated; empty if neither.

    Raises:
        VideoError: If the file is missing, unreadable, empty, not a video, or has no video stream.
        av.FFmpegError: If libav fails for another reason.
    """

    def __init__(self, path: Path, *, listing: Listing | None = None) -> None:
        with opened_video(path) as file:
            if not file.read(1):
                raise VideoError(EMPTY)
        self.path = path
        try:
            self._container = _open(path)
        except av.FFmpegError as error:
            if why := why_no_video(path):
                raise VideoError(why) from error
            if isinstance(error, (av.InvalidDataError, av.error.ArgumentError)):
                raise VideoError(f"cannot be decoded: {NO_VIDEO} ({error.strerror})") from error
            raise
        try:
            self.stream = video_stream(self._container)
            streams = video_streams(self._container)
            self.number, self.n_streams = streams.index(self.stream) + 1, len(streams)
            self.description = _describe(self._container, self.stream)
            self.claimed = self.stream.frames
            self.lasts = (self._container.duration or 0) / av.time_base
            self.time_base = fraction(self.stream.time_base) or Fraction(1, 1000)
            self.rate = float(nominal_rate(self.stream))
            self.high_range = _HIGH_RANGE.get(int(self.stream.codec_context.color_trc), "")
            self.cut_short = "" if listing is None else listing.cut_short
            context = self.stream.codec_context
            self._reads = packet_reader(context.name, context.extradata)
            self._kept: list[av.Packet[VideoStream]] | None = None
            self._seeking: av.container.InputContainer | None = None
            self.listing = self._list(in_memory=path.stat().st_size <= KEPT_BYTES) if listing is None else listing
            self.claimed = max(self.claimed - self.listing.n_hidden, 0)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exc: object) -> None:
        self._kept = None
        self.__dict__.pop("_with_content", None)
        self._container.close()
        if self._seeking is not None:
            self._seeking.close()

    def _list(self, *, in_memory: bool) -> Listing:
        listing, kept = Listing([], 0, "", None if in_memory else []), []
        for packet in self._demux(self._container, self.stream):
            if packet.size and not packet.is_discard:
                listing.pts.append(packet.pts)
            listing.n_hidden += packet.size > 0 and packet.is_discard
            if listing.notes is None:
                kept.append(packet)
            elif packet.size:
                listing.notes += self._note(packet)
        if not self.cut_short and is_cut(self.path):
            self.cut_short = "file ends before its header says"
        listing.cut_short = self.cut_short
        self._kept = kept if in_memory else None
        return listing

    def _note(self, packet: av.Packet[VideoStream]) -> list[Note]:
        """Return a note on a packet; empty for a codec whose videos are always decoded completely."""
        if self._reads is None:
            return []
        clean, parameters = self._reads(bytes(packet))
        usable = not (packet.is_corrupt or packet.is_discard)
        return [Note(packet.pts, clean and packet.is_keyframe, usable, parameters, packet.dts, packet.size)]

    def notes(self) -> list[Note]:
        """Return a note on each non-empty packet; empty for a codec whose videos are always decoded completely."""
        if self.listing.notes is None:
            self.listing.notes = [note for packet in self._with_content for note in self._note(packet)]
        return self.listing.notes

    @property
    def n_packets(self) -> int:
        """Number of non-empty packets that are to be shown."""
        return len(self.listing.pts)

    def seconds(self, pts: int) -> float:
        """Return a time given in the stream's units in seconds, with a single rounding."""
        return pts * self.time_base.numerator / self.time_base.denominator

    def packets(self) -> Iterator[av.Packet[VideoStream]]:
        """Yield all packets in decoding order, including the empty one at the end of a complete stream."""
        if self._kept is not None:
            yield from self._kept
            return
        with _open(self.path) as again:
            yield from self._demux(again, video_stream(again))

    @cached_property
    def _with_content(self) -> list[av.Packet[VideoStream]]:
        return [packet for packet in self._kept or () if packet.size]

    def packets_between(self, start: int, stop: int) -> Iterator[av.Packet[VideoStream]]:
        """Yield non-empty packets by their numbers; fewer if seeking in the container does not find them.

        If they are not in memory, the file is not read from the beginning, so the cost does not grow with the file.
        """
        if self._kept is not None:
            yield from self._with_content[start:stop]
            return
        if self._seeking is None:
            self._seeking = _open(self.path)
        stream, notes = video_stream(self._seeking), self.notes()[start:stop]
        first = notes[0]
        try:
            if start:
                self._seeking.seek((first.pts or 0) if first.dts is None else first.dts, stream=stream)
        except av.FFmpegError:
            return
        found = (packet for packet in self._demux(self._seeking, stream) if packet.size)
        for note, packet in zip(notes, dropwhile(lambda packet: not _is(packet, first), found), strict=False):
            if not _is(packet, note):
                return
            yield packet

    def _demux(self, container: av.container.InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
        try:
            yield from container.demux(stream)
        except av.FFmpegError as error:
            if isinstance(error, OSError | MemoryError):  # not the file's fault: the next attempt may succeed
                raise VideoError(f"cannot be read to its end: {error.strerror}") from error
            self.cut_short = error.strerror or str(error)
            # An empty packet, as at a regular end, makes the decoder output the frames it holds back, with their times.
            end = cast("av.Packet[VideoStream]", av.Packet())
            end.time_base = fraction(stream.time_base)
            yield end


def _is(packet: av.Packet[VideoStream], note: Note) -> bool:
    return (packet.pts, packet.size) == (note.pts, note.size)


@lru_cache(maxsize=1)
def listing_of(path: Path, _stamp: Stamp | None) -> Listing:
    """Return the listing of a file's packets; cached, so that consecutive parts of one file read it only once.

    Args:
        path: The file.
        _stamp: Changes when the file is written to, so that the cache is not used then.

    Raises:
        VideoError: As in :class:`Video`.
        av.FFmpegError: If libav fails for another reason.
    """
    with Video(path) as video:
        video.notes()
        return video.listing


def _open(path: Path) -> av.container.InputContainer:
    # an absolute path, because libav takes the part of a file name before a colon for a protocol
    opened: av.container.InputContainer = av.open(str(path.absolute()), options=ONE_FILE, **FORGIVING)
    return opened


def video_streams(container: av.container.InputContainer) -> list[VideoStream]:
    """Return the video streams; cover art does not count."""
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def video_stream(container: av.container.InputContainer) -> VideoStream:
    """Return the video stream that a player shows: the first that the container marks as default, or else the first."""
    streams = video_streams(container)
    if not streams:
        kinds = {"cover picture" if s.type == "video" else s.type for s in container.streams}
        only = ": it is sound only, so give the video that it belongs to" * (kinds - {"cover picture"} == {"audio"})
        raise VideoError(f"no video stream (streams found: {', '.join(sorted(kinds)) or 'none'}){only}")
    stream = next((s for s in streams if s.disposition & av.stream.Disposition.default), streams[0])
    if stream.codec_context is None:
        raise VideoError(
            "no decoder for its video codec: convert it to MP4 (H.264) with the camera's or recorder's own program"
        )
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > LARGEST:
        raise VideoError(f"frames of {width} x {height} pixels are too large: expected 8192 x 8192 at most")
    stream.codec_context.options = {"max_pixels": str(LARGEST)}  # frames may become larger during the video
    # One thread per decoder: clips are decoded in parallel by several processes, and results are reproducible.
    stream.codec_context.thread_count = 1
    return stream


def nominal_rate(stream: VideoStream) -> Fraction:
    """Return the frames per second that a stream claims, or 25 if it does not say."""
    return fraction(stream.average_rate) or fraction(stream.base_rate) or Fraction(25)


def fraction(rational: Any) -> Fraction:
    """Return a fraction from PyAV, which since version 19 has its own type, as a Fraction; 0 for None and n/0."""
    known = rational is not None and rational.denominator
    return Fraction(rational.numerator, rational.denominator) if known else Fraction(0)


@dataclass
class Damage:
    """Counts of what could not be decoded.

    Attributes:
        undecodable: Number of packets.
        corrupt: Number of frames that the decoder had to make up.
    """

    undecodable: int = 0
    corrupt: int = 0


def sound_frames(
    context: VideoCodecContext, packets: Iterable[av.Packet[VideoStream]], damage: Damage
) -> Iterator[VideoFrame]:
    """Yield the frames that decode, in presentation order; the others are counted in ``damage``."""
    for packet in packets:
        try:
            frames = context.decode(packet)
        except av.InvalidDataError:
            damage.undecodable += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.corrupt += 1
            else:
                yield frame


def _describe(container: av.container.InputContainer, stream: VideoStream) -> dict[str, Any]:
    context = stream.codec_context
    kind = context.format  # None if no picture decoded; PyAV 17's own pix_fmt crashes then
    return {
        "container": container.format.name,
        "codec": context.name,
        "pixel_format": kind.name if kind else "unknown",
        "width": context.width,
        "height": context.height,
        "video_streams": len(container.streams.video),
    }
