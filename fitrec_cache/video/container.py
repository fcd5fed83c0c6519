"""An opened video file: its picture stream and its packets. PyAV lives here, in ``video`` and in ``live/stream``."""

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

from fitrec_cache.common.files import opened_video
from fitrec_cache.errors import VideoError
from fitrec_cache.video.keyframes import Note, packet_reader
from fitrec_cache.video.no_video import EMPTY, why_no_video
from fitrec_cache.video.truncation import is_cut

#: Options of PyAV: a title in another encoding must not fail a video. From 19 on it never does, and there is no option.
FORGIVING: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}

#: What FFmpeg may take a file for, and read: a playlist or a description of a stream would have it open other files, or
#: the network, and the file's hash would not be that of what is seen.
ONE_FILE = {
    "format_whitelist": "apng,asf,av1,avi,avs2,cavsvideo,dhav,dirac,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,"
    "matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,swf,vc1,vvc,webm,wtv,yuv4mpegpipe",
    "protocol_whitelist": "file",
}

#: Packets of a file up to this size, in bytes, are kept in memory between counting and decoding.
KEPT_BYTES = 64_000_000

#: Why a file is refused that opens as none of these.
NO_VIDEO = "not a video by its content, of an unsupported kind, or not completely written"

#: Pixels of a frame that is decoded; a header that says otherwise wants memory.
LARGEST = 8192 * 8192

#: Transfer characteristics by their number: ITU-T H.273, table 3.
_HIGH_RANGE = {16: "PQ", 18: "HLG"}


def decoder_version() -> str:
    """Return the versions of the libraries that decide what a decoded frame looks like."""
    parts = ("libavcodec", "libavformat", "libswscale")
    return ", ".join(f"{p} {'.'.join(map(str, av.library_versions[p]))}" for p in parts)


def library_version() -> str:
    """Return the version of PyAV, and of the FFmpeg in it."""
    codecs = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"{av.__version__} with FFmpeg {av.ffmpeg_version_info} (libavcodec {codecs})"


#: Frames in a row with times before those that were there: more than a decoder holds back, so the clock was set back.
SET_BACK = 17


@dataclass
class Listing:
    """What the packets of a file say that have content, in decoding order.

    Attributes:
        pts: When each is to be shown, in the stream's units; None if the container does not say.
        n_hidden: Further ones that only others need: an edit list hides what was in front of a cut.
        cut_short: Why reading ended, or the file ends, early; empty if neither does.
        notes: Of all of them; None while they are in memory and nobody asked.
    """

    pts: list[int | None]
    n_hidden: int
    cut_short: str
    notes: list[Note] | None


class Video:
    """A video file whose packets have been read once, without decoding; use as a context manager.

    Args:
        path: The file.
        listing: What its packets say, if they were read before.

    Attributes:
        path: The file.
        stream: Its first stream of moving pictures.
        description: Container, codec and geometry, for the ledger.
        listing: What its packets say.
        claimed: Frames that the header claims, without hidden ones; 0 if it does not say.
        lasts: Seconds that the container claims to last; 0 if it does not say.
        time_base: Seconds in a unit of its packets' times.
        rate: Nominal frames a second.
        high_range: ``PQ`` or ``HLG`` where brightness is coded for screens of high dynamic range, else empty.
        cut_short: Why reading ended, or the file ends, early; empty if neither does.

    Raises:
        VideoError: If the file is missing, unreadable, empty, not a video, or has no picture stream.
        av.FFmpegError: If libav gives up for another reason.
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
        """Return what is known of a packet; nothing for a codec that is always decoded whole."""
        if self._reads is None:
            return []
        clean, parameters = self._reads(bytes(packet))
        usable = not (packet.is_corrupt or packet.is_discard)
        return [Note(packet.pts, clean and packet.is_keyframe, usable, parameters, packet.dts, packet.size)]

    def notes(self) -> list[Note]:
        """Return what is known of each packet with content; nothing for a codec that is always decoded whole."""
        if self.listing.notes is None:
            self.listing.notes = [note for packet in self._with_content for note in self._note(packet)]
        return self.listing.notes

    @property
    def n_packets(self) -> int:
        """How many packets have content and are to be shown."""
        return len(self.listing.pts)

    def seconds(self, pts: int) -> float:
        """Return the seconds of a time in the stream's units, rounded once."""
        return pts * self.time_base.numerator / self.time_base.denominator

    def packets(self) -> Iterator[av.Packet[VideoStream]]:
        """Yield all packets in decoding order, the empty one that ends a whole stream included."""
        if self._kept is not None:
            yield from self._kept
            return
        with _open(self.path) as again:
            yield from self._demux(again, video_stream(again))

    @cached_property
    def _with_content(self) -> list[av.Packet[VideoStream]]:
        return [packet for packet in self._kept or () if packet.size]

    def packets_between(self, start: int, stop: int) -> Iterator[av.Packet[VideoStream]]:
        """Yield packets with content by their numbers; fewer where the container does not lead to them.

        What is not in memory is not read from the beginning, so that its cost does not grow with the file.
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
            if isinstance(error, OSError | MemoryError):  # not the file's fault: the next try may do
                raise VideoError(f"cannot be read to its end: {error.strerror}") from error
            self.cut_short = error.strerror or str(error)
            # As at a sound end, so that what the decoder holds back comes out, with its times.
            end = cast("av.Packet[VideoStream]", av.Packet())
            end.time_base = fraction(stream.time_base)
            yield end


def _is(packet: av.Packet[VideoStream], note: Note) -> bool:
    return (packet.pts, packet.size) == (note.pts, note.size)


@lru_cache(maxsize=1)
def listing_of(path: Path, _stamp: tuple[int, int, int] | None) -> Listing:
    """Return what the packets of a file say, which is read once for parts of it that come one after the other.

    Args:
        path: The file.
        _stamp: Another one where it was written to meanwhile.

    Raises:
        VideoError: As of :class:`Video`.
        av.FFmpegError: If libav gives up for another reason.
    """
    with Video(path) as video:
        video.notes()
        return video.listing


def _open(path: Path) -> av.container.InputContainer:
    # absolute: in front of a colon libav takes the name of a file for a protocol
    opened: av.container.InputContainer = av.open(str(path.absolute()), options=ONE_FILE, **FORGIVING)
    return opened


def video_stream(container: av.container.InputContainer) -> VideoStream:
    """Return the first stream of moving pictures; cover art is not one."""
    art = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & art]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        only = ": it is sound only, so give the video that it belongs to" * (kinds == "audio")
        raise VideoError(f"no video stream (streams found: {kinds}){only}")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(
            "no decoder for its video codec: convert it to MP4 (H.264) with the camera's or recorder's own program"
        )
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > LARGEST:
        raise VideoError(f"frames of {width} x {height} pixels are too large: expected 8192 x 8192 at most")
    stream.codec_context.options = {"max_pixels": str(LARGEST)}  # if they grow on the way
    # Clips are decoded side by side in processes of their own: one thread each, and the same answer always.
    stream.codec_context.thread_count = 1
    return stream


def nominal_rate(stream: VideoStream) -> Fraction:
    """Return the frames a second that a stream claims, 25 if it does not say."""
    return fraction(stream.average_rate) or fraction(stream.base_rate) or Fraction(25)


def fraction(rational: Any) -> Fraction:
    """Return what PyAV gives as a fraction, which since version 19 is a type of its own; 0 for None and n/0."""
    known = rational is not None and rational.denominator
    return Fraction(rational.numerator, rational.denominator) if known else Fraction(0)


@dataclass
class Damage:
    """What did not decode.

    Attributes:
        undecodable: Number of packets.
        corrupt: Number of frames that the decoder had to invent.
    """

    undecodable: int = 0
    corrupt: int = 0


def sound_frames(
    context: VideoCodecContext, packets: Iterable[av.Packet[VideoStream]], damage: Damage
) -> Iterator[VideoFrame]:
    """Yield what decodes, in presentation order; what does not is counted in ``damage``."""
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
    return {
        "container": container.format.name,
        "codec": context.name,
        "pixel_format": context.pix_fmt or "unknown",
        "width": context.width,
        "height": context.height,
        "video_streams": len(container.streams.video),
    }
