"""Determine which packets of a long video must be decoded to get the wanted frames, without decoding anything.

Decoding may begin only at a packet after which nothing refers to anything before it. What a container calls a key frame
is not always such a place (H.264 recovery points are not), so the packet itself is examined.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

#: A clip with fewer packets is decoded completely, which also shows whether every frame decodes.
LONG_PACKETS = 1000

#: If more than this share of the packets is needed, all are decoded.
MOST_SHARE = 0.5

_H264_IDR, _H264_PARAMETERS = {5}, {7, 8}
_HEVC_CLEAN, _HEVC_PARAMETERS = {16, 17, 18, 19, 20, 21}, {32, 33, 34}  # BLA, IDR, CRA
_VOP_START = b"\x00\x00\x01\xb6"


@dataclass(frozen=True, slots=True)
class Note:
    """The facts about one packet that planning needs.

    Attributes:
        pts: Presentation time in the stream's units; None if the container gives none.
        clean: Whether decoding may begin here: frames shown after this one need nothing from before it.
        usable: False if the container marks it as damaged or as not to be shown.
        parameters: Parameter sets inside the packet; all clean starts of a stream must carry the same.
        dts: Decoding time in the stream's units, by which containers find the packet.
        size: Size in bytes.
    """

    pts: int | None
    clean: bool
    usable: bool = True
    parameters: tuple[bytes, ...] = ()
    dts: int | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Packets ``[start, stop)`` in decoding order, and the times of the frames that they must yield, in order."""

    start: int
    stop: int
    first_pts: int
    expected: tuple[int, ...]


def packet_reader(codec: str, extradata: bytes | None) -> Callable[[bytes], tuple[bool, tuple[bytes, ...]]] | None:
    """Return a function that takes a packet's bytes and returns whether it is a clean start, and its parameter sets.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The decoder's configuration as stored in the container.

    Returns:
        The function; None for an unsupported codec, whose videos are decoded completely.

    Source:
        Unit types: Rec. ITU-T H.264 table 7-1 and H.265 table 7-1. VP8: RFC 6386, 9.1. VP9 bitstream
        specification, 6.2. MPEG-4 Visual: ISO/IEC 14496-2, 6.2.5.
    """
    if codec == "h264":
        return _nal_reader(extradata, 4, lambda first: first & 31, _H264_IDR, _H264_PARAMETERS)
    if codec == "hevc":
        return _nal_reader(extradata, 21, lambda first: first >> 1 & 63, _HEVC_CLEAN, _HEVC_PARAMETERS)
    simple = {"vp8": _is_vp8_key, "vp9": _is_vp9_key, "mpeg4": _is_mpeg4_key}.get(codec)
    return None if simple is None else lambda data: (simple(data), ())


def _nal_reader(
    extradata: bytes | None, size_at: int, kind_of: Callable[[int], int], clean: set[int], parameters: set[int]
) -> Callable[[bytes], tuple[bool, tuple[bytes, ...]]]:
    # A configuration record begins with 1 and gives the size of length fields; without one, units follow start codes.
    lengths = (extradata[size_at] & 3) + 1 if extradata and extradata[0] == 1 and len(extradata) > size_at else 0

    def read(data: bytes) -> tuple[bool, tuple[bytes, ...]]:
        units = list(_by_length(data, lengths) if lengths else _by_start_code(data))
        kinds = [kind_of(unit[0]) for unit in units]
        return (
            any(k in clean for k in kinds),
            tuple(bytes(u) for u, k in zip(units, kinds, strict=True) if k in parameters),
        )

    return read


def _by_length(data: bytes, lengths: int) -> Iterator[memoryview]:
    view, at = memoryview(data), 0
    while at + lengths < len(data):
        size = int.from_bytes(view[at : at + lengths], "big")
        unit = view[at + lengths : at + lengths + size]
        if unit:
            yield unit
        at += lengths + size


def _by_start_code(data: bytes) -> Iterator[memoryview]:
    view, at = memoryview(data), data.find(b"\x00\x00\x01")
    while at >= 0:
        following = data.find(b"\x00\x00\x01", at + 3)
        unit = view[at + 3 : following if following >= 0 else len(data)]
        if unit:
            yield unit
        at = following


def _is_vp8_key(data: bytes) -> bool:
    return bool(data) and not data[0] & 1


def _is_vp9_key(data: bytes) -> bool:
    if not data or data[0] >> 6 != 2:
        return False
    profile = (data[0] >> 5 & 1) | (data[0] >> 4 & 1) << 1
    below = 2 if profile == 3 else 3  # profile 3 has one more reserved bit
    shows_existing, inter = data[0] >> below & 1, data[0] >> (below - 1) & 1
    return not shows_existing and not inter


def _is_mpeg4_key(data: bytes) -> bool:
    at = data.find(_VOP_START)
    return 0 <= at < len(data) - 4 and data[at + 4] >> 6 == 0


def presentation_order(notes: Sequence[Note]) -> list[int] | None:
    """Return the times of all frames in the order in which they are shown, if they can be known without decoding.

    Returns:
        The times; None unless each packet has its own time, the first packet is a clean start and shown first, none is
        damaged or hidden, and all clean starts carry the same parameter sets.
    """
    times = [n.pts for n in notes if n.pts is not None and n.usable]
    if not notes or len(times) != len(notes) or len(set(times)) != len(times):
        return None
    if not notes[0].clean or times[0] != min(times):
        return None
    if any(n.parameters != (notes[0].parameters if n.clean else ()) for n in notes):
        return None
    return sorted(times)


def stretches(notes: Sequence[Note], wanted: Sequence[int]) -> list[Stretch] | None:
    """Return the packets to decode for the frames shown at the times ``wanted``.

    The first packet is always decoded (from it decoders learn which encoder made the video), and so is everything from
    the last clean start to the end (a truncated file is damaged there).

    Args:
        notes: Notes on all packets in decoding order; :func:`presentation_order` must have returned their order.
        wanted: Times of the wanted frames, each the time of a packet.

    Returns:
        Stretches that do not overlap, in order; None if they are more than :data:`MOST_SHARE` of all packets.
    """
    starts = [i for i, n in enumerate(notes) if n.clean]
    times = [n.pts or 0 for n in notes]
    at = {time: i for i, time in enumerate(times)}
    spans = {0: 1, starts[-1]: len(notes)}
    for position in sorted(at[time] for time in wanted):
        nearest = bisect_right(starts, position) - 1
        # A frame that is shown before its clean start may refer to packets before that start.
        while nearest and times[position] < times[starts[nearest]]:
            nearest -= 1
        start = starts[nearest]
        spans[start] = max(spans.get(start, 0), position + 1)
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans.items()):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    if sum(stop - start for start, stop in merged) > MOST_SHARE * len(notes):
        return None
    return [
        Stretch(start, stop, times[start], tuple(sorted(t for t in times[start:stop] if t >= times[start])))
        for start, stop in merged
    ]
