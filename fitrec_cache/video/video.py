"""Decode the sampled frames of one video."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fitrec_cache.common.files import file_stamp
from fitrec_cache.errors import VideoError
from fitrec_cache.video.container import SET_BACK, Damage, Video, listing_of, sound_frames
from fitrec_cache.video.keyframes import LONG_PACKETS, Stretch, presentation_order, stretches
from fitrec_cache.video.no_video import is_encrypted
from fitrec_cache.video.spans import Span
from fitrec_cache.wording import plural

#: If less than this share of the frames in a clip's container can be decoded, the clip fails.
MIN_DECODED_SHARE = 0.5

#: The greatest number of packets whose times may be damaged.
_FAR_AHEAD = 3

#: The greatest aspect ratio of a pixel. Most are square, some up to three times as wide or as high; a much larger ratio
#: means that the header is damaged.
MOST_STRETCHED = 8

Sampler = Callable[[int], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class DecodedClip:
    """Sampled frames of one clip, and what was found while decoding it.

    Attributes:
        frames: uint8 ``(T, H, W, 3)``, RGB, upright, square pixels.
        frame_index: int64 ``(T,)``, non-decreasing positions among the frames that decode.
        pts_seconds: float64 ``(T,)``, presentation times as the container gives them.
        ledger: The findings: container, codec, frames claimed and decoded, rotation, warnings.
    """

    frames: NDArray[np.uint8]
    frame_index: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    ledger: dict[str, Any]


@dataclass
class _Pass:
    """The result of decoding a stream. ``verified``: number of frames that did decode, at most that of ``times``."""

    pictures: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    times: list[float | None] = field(default_factory=list)
    verified: int = 0
    damage: Damage = field(default_factory=Damage)
    rotation: int = 0
    mirrored: bool = False
    interlaced: bool = False

    def note(self, frame: VideoFrame) -> None:
        """Note that a frame decoded; the first one tells the orientation of all."""
        if not self.verified:
            matrix = _display_matrix(frame)
            self.rotation = 0 if np.array_equal(matrix, np.eye(2)) else int(frame.rotation)
            self.mirrored = bool(np.linalg.det(matrix) < 0)
        self.verified += 1
        self.interlaced = self.interlaced or bool(frame.interlaced_frame)


@dataclass(frozen=True)
class _Wanted:
    """Chooses the wanted frames, given the times of all. ``earliest``: the earliest time of a packet, if known."""

    sampler: Sampler
    span: Span | None
    earliest: float | None

    def among(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of the wanted frames; ``times`` has the time of each frame in seconds."""
        if self.span is None:
            return self.sampler(len(times))
        inside = self.inside(times, self.span)
        if not inside.size:
            last = self.since(times)[-1]
            raise VideoError(f"no frame in its part {self.span} (seconds): the last of the file is at {last:.2f} s")
        return inside[self.sampler(inside.size)]

    def inside(self, times: NDArray[np.float64], span: Span) -> NDArray[np.int64]:
        """Return the numbers of the frames in a part of the video."""
        since = np.round(self.since(times), 3)  # rounded like the part's times
        return np.flatnonzero((since >= span.start) & (since < span.end))

    def since(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return seconds since :meth:`start`."""
        return times - self.start(times)

    def start(self, times: NDArray[np.float64]) -> float:
        """Return the time from which parts are counted: of the first frame, or of a packet before it."""
        first = float(times[0])
        return first if self.earliest is None else min(self.earliest, first)


@dataclass(frozen=True)
class _Plan:
    """The times of all frames in order, in the stream's units; what to decode; the frame number of each wanted time."""

    times: list[int]
    parts: list[Stretch]
    numbers: dict[int, int]


def read_frames(path: Path, *, sampler: Sampler, short_side: int, span: Span | None = None) -> DecodedClip:
    """Decode a video once and return the frames that ``sampler`` chooses.

    Which frames are wanted depends on how many really decode, which is known only at the end. So the packets are first
    counted without decoding, and one sequential decode keeps the frames that this count predicts; only if a different
    number decodes is the video decoded again.

    In a long video (:data:`fitrec_cache.video.keyframes.LONG_PACKETS`) only what the wanted frames need is decoded,
    provided that its packets guarantee the same result; ``frames_verified`` in the ledger is then less than
    ``frames_decoded``. If anything unexpected happens, the whole video is decoded.

    Args:
        path: A video file.
        sampler: Maps the number of frames that decode, at least 1, to the wanted frame numbers; for a part, the frames
            of the part.
        short_side: The shorter side of returned frames in pixels is at most this; frames are never enlarged.
        span: The part of the video to sample; None: all of it.

    Returns:
        The sampled frames, upright and with square pixels.

    Raises:
        VideoError: If the file is missing, unreadable or not a video, has no video stream, too little of it decodes, or
            no frame is in the part.
    """
    try:
        with _open(path, span) as video:
            promised = None if span is None else _promised(video)
            earliest = min((video.seconds(pts) for pts in video.listing.pts if pts is not None), default=None)
            wanted = _Wanted(sampler, span, earliest)
            indices = _expected(video, wanted, promised)
            plan = _plan(video, indices)
            seen = _decode(video, indices, short_side) if plan is None else _decode_needed(video, plan, short_side)
        if seen is None:  # decoding did not yield what the packets promised
            with _open(path, span) as video:
                seen = _decode(video, indices, short_side)
        n_frames = len(seen.times)
        if n_frames == 0:
            packets = plural(video.n_packets, "packet")
            raise VideoError(f"no frame decodes: the container holds {packets}, 0 gave a picture{_why(video)}")
        times, warnings = _times(video, seen.times)
        if span is None or promised is None or _are_fields(video, seen):
            _check_whole(video, seen)
        else:
            _check_part(video, wanted, span, times, promised)
        indices = wanted.among(times)
        if not set(indices.tolist()) <= seen.pictures.keys():
            with _open(path, span) as video:
                seen = _decode(video, indices, short_side)
            if len(seen.times) != n_frames:
                raise VideoError(f"decoding is not repeatable: {n_frames} frames, then {len(seen.times)}")
        return _assemble(video, seen, indices, wanted, times, warnings)
    except av.FFmpegError as error:
        raise VideoError(f"cannot be decoded: {error.strerror or error}") from error


def _open(path: Path, span: Span | None) -> Video:
    return Video(path, listing=None if span is None else listing_of(path, file_stamp(path)))


def _promised(video: Video) -> NDArray[np.float64] | None:
    """Return the time of each frame in seconds, assuming that every packet yields one; None if packets lack times."""
    known = [pts for pts in video.listing.pts if pts is not None]
    if _is_set_back(known):
        raise VideoError(
            "its time stamps jump back part-way, as where recordings were joined, so parts cannot be found by time: "
            "cut the file there and list the pieces"
        )
    known.sort()
    return np.array([video.seconds(pts) for pts in known]) if known and len(known) == video.n_packets else None


def _is_set_back(known: Sequence[int]) -> bool:
    """Say whether times, in decoding order, start again from an earlier time.

    If each packet is a field, there are two per frame. A few packets with times far ahead, as damage produces them, do
    not count as the times that the others fall behind.
    """
    latest, behind, enough = -math.inf, 0, 2 * SET_BACK
    for number, time in enumerate(known, start=1):
        latest, behind = (time, 0) if time > latest else (latest, behind + 1)
        if behind == enough:
            before, again = known[: number - enough], known[number - enough : number]
            if min(again) <= heapq.nlargest(_FAR_AHEAD + 1, before)[-1]:
                return True
            latest, behind = max(again), 0
    return False


def _why(video: Video) -> str:
    """Return why too few pictures of a file decode, as far as it can be told, and what to do."""
    if is_encrypted(video.path):
        return ", as its pictures are encrypted: give a copy without copy protection"
    return f"{f' ({video.cut_short})' * bool(video.cut_short)}: copy or download it again"


def _are_fields(video: Video, seen: _Pass) -> bool:
    """Say whether each packet is one of two fields of a frame, as in camcorders' files."""
    found = len(seen.times) + seen.damage.corrupt + seen.damage.undecodable
    return seen.interlaced and not video.claimed and found <= -(-video.n_packets // 2)


def _check_whole(video: Video, seen: _Pass) -> None:
    decoded, packets = len(seen.times), video.n_packets
    if _are_fields(video, seen):
        packets = -(-packets // 2)
    expected = max(packets, (video.claimed or round(video.lasts * video.rate)) if video.cut_short else 0)
    if decoded < MIN_DECODED_SHARE * expected:
        raise VideoError(
            f"only {decoded} of {expected} frames decode, at least {MIN_DECODED_SHARE:.0%} are needed{_why(video)}"
        )


def _check_part(
    video: Video, wanted: _Wanted, span: Span, times: NDArray[np.float64], promised: NDArray[np.float64]
) -> None:
    decoded, expected = (len(wanted.inside(known, span)) for known in (times, promised))
    if video.cut_short:  # add the frames after the last packet in the file
        there = float(wanted.since(promised)[-1]) + 1 / video.rate
        expected += max(0, round((min(span.end, video.lasts) - max(span.start, there)) * video.rate))
    if decoded < MIN_DECODED_SHARE * expected:
        raise VideoError(f"only {decoded} of {expected} frames of its part decode, {MIN_DECODED_SHARE:.0%} are needed")


def _expected(video: Video, wanted: _Wanted, promised: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """Return the numbers of the wanted frames if every packet yields one; empty for a part without known times."""
    if wanted.span is None:
        return wanted.sampler(max(video.n_packets, 1))
    return np.array([], dtype=np.int64) if promised is None else wanted.among(promised)


def _decode(video: Video, indices: NDArray[np.int64], short_side: int) -> _Pass:
    """Decode every frame in order and convert those whose number is in ``indices``."""
    wanted, converter = set(indices.tolist()), Converter(video.stream, short_side)
    seen = _Pass()
    for frame in sound_frames(video.stream.codec_context, video.packets(), seen.damage):
        number = seen.verified
        seen.note(frame)
        seen.times.append(frame.time)
        if number in wanted:
            seen.pictures[number] = converter.picture(frame)
    return seen


def _plan(video: Video, indices: NDArray[np.int64]) -> _Plan | None:
    """Return a plan for the frames with these numbers; None if only a complete decode surely gives the same frames."""
    if video.n_packets < LONG_PACKETS or video.cut_short:
        return None
    notes = video.notes()
    times = presentation_order(notes) if video.claimed in (0, len(notes)) else None
    parts = stretches(notes, [times[i] for i in indices.tolist()]) if times else None
    return _Plan(times, parts, {times[i]: i for i in indices.tolist()}) if times and parts else None


def _decode_needed(video: Video, plan: _Plan, short_side: int) -> _Pass | None:
    """Decode a plan's stretches; None if one of them yields anything but the expected frames."""
    seen = _Pass(times=[video.seconds(t) for t in plan.times])
    converter = Converter(video.stream, short_side)
    if all(_decode_stretch(video, stretch, seen, plan.numbers, converter) for stretch in plan.parts):
        return seen
    return None


def _decode_stretch(
    video: Video, stretch: Stretch, seen: _Pass, numbers: Mapping[int, int], converter: Converter
) -> bool:
    """Decode one stretch and keep its wanted frames; say whether it yielded exactly the expected frames."""
    context = video.stream.codec_context
    expected = iter(stretch.expected)
    context.flush_buffers()
    packets = video.packets_between(stretch.start, stretch.stop)
    try:
        for frame in chain.from_iterable(map(context.decode, chain(packets, [None]))):
            if frame.pts is not None and frame.pts < stretch.first_pts:
                continue  # shown before the start: not wanted, and the packets it refers to were left out
            if frame.pts is None or frame.pts != next(expected, None) or frame.is_corrupt:
                return False
            seen.note(frame)
            if frame.pts in numbers:
                seen.pictures[numbers[frame.pts]] = converter.picture(frame)
    except av.InvalidDataError:
        return False
    return next(expected, None) is None


class Converter:
    """Turns frames of one stream into pictures, RGB: scaled down if larger than wanted, square pixels, upright.

    Args:
        stream: The stream, which gives the aspect ratio of its pixels; None: they are square.
        short_side: The shorter side of a picture in pixels is at most this.
    """

    def __init__(self, stream: VideoStream | None, short_side: int) -> None:
        self._stream, self._short_side = stream, short_side
        self._scaler = VideoReformatter()  # shared by all frames: creating one takes longer than using it

    def picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return one frame as a picture ``(H, W, 3)``.

        Raises:
            VideoError: If the aspect ratio of its pixels is impossible, or the rotation is no multiple of 90 degrees.
        """
        ratio = (self._stream and self._stream.sample_aspect_ratio) or 1
        if not 1 / MOST_STRETCHED <= ratio <= MOST_STRETCHED:
            raise VideoError(f"its header says that a pixel is {float(ratio):.3g} times as wide as high")
        width = frame.width * float(ratio)
        scale = min(1.0, self._short_side / min(width, frame.height))
        size = max(1, round(width * scale)), max(1, round(frame.height * scale))
        # One thread, because there is a decoder for every core; several would give the same bits.
        coded: NDArray[Any] = self._scaler.reformat(
            frame, width=size[0], height=size[1], format="rgb24", interpolation="BICUBIC", threads=1
        ).to_ndarray()
        return np.ascontiguousarray(_as_shown(coded, _display_matrix(frame)))


def rgb_frame(picture: NDArray[np.uint8]) -> VideoFrame:
    """Return a picture ``(H, W, 3)``, RGB, as a frame for a :class:`Converter`."""
    return VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")


def _display_matrix(frame: VideoFrame) -> NDArray[np.int32]:
    """Return the transformation that a player applies to the coded picture: ``[[a, b], [c, d]]``, signs and zeros.

    A point ``(x, y)``, y downwards, is shown at ``(a x + c y, b x + d y)``. An angle is not enough, because front
    cameras write mirrored pictures.

    Source:
        ISO/IEC 14496-12, 8.3.2, the matrix of a track header.

    Raises:
        VideoError: If it is not a rotation by a multiple of 90 degrees, mirrored or not.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2, dtype=np.int32)
    matrix = np.frombuffer(bytes(data), dtype=np.int32).reshape(3, 3)[:2, :2].astype(np.int64)
    if not matrix.any():  # the writer left it empty
        return np.eye(2, dtype=np.int32)
    signs = np.where(np.abs(matrix) > np.abs(matrix).max() / 1000, np.sign(matrix), 0)
    if not any(np.array_equal(np.abs(signs), turn) for turn in (np.eye(2), 1 - np.eye(2))):
        raise VideoError(f"rotation of {frame.rotation} degrees is not a multiple of 90")
    return signs.astype(np.int32)


def _as_shown(picture: NDArray[Any], matrix: NDArray[np.int32]) -> NDArray[Any]:
    """Rotate and mirror a picture ``(H, W, 3)`` by ``matrix`` (:func:`_display_matrix`)."""
    if not matrix[0, 0]:
        picture, matrix = picture.transpose(1, 0, 2), matrix[::-1]  # x and y change places
    return picture[:: int(matrix[1, 1]), :: int(matrix[0, 0])]


def _assemble(
    video: Video,
    seen: _Pass,
    indices: NDArray[np.int64],
    wanted: _Wanted,
    times: NDArray[np.float64],
    warnings: list[str],
) -> DecodedClip:
    decoded, claimed, damage = len(seen.times), video.claimed, seen.damage
    different = len(set(indices.tolist()))
    pictures = [seen.pictures[i] for i in indices.tolist()]
    sizes = list(dict.fromkeys(f"{p.shape[1]} x {p.shape[0]}" for p in pictures))
    if len(sizes) > 1:
        raise VideoError(
            f"the picture size changes within the clip, as stored, from {' to '.join(sizes)} pixels: expected one. "
            "Convert it to one size, with FFmpeg for example, or cut it there"
        )
    frames = np.stack(pictures)
    ledger = video.description | {
        "frames_claimed": claimed,
        "frames_decoded": decoded,
        "frames_verified": seen.verified,
        "frames_hidden": video.listing.n_hidden,
        "frames_corrupt": damage.corrupt,
        "packets_undecodable": damage.undecodable,
        "starts_at_seconds": wanted.start(times),
        "duration_seconds": round(float(times[-1] - times[0]), 6),
        "variable_frame_rate": _is_variable(times),
        "rotation_degrees": seen.rotation % 360,
        "mirrored": seen.mirrored,
        "interlaced": seen.interlaced,
        "repeated_samples": len(indices) - different,
    }
    if different < len(indices):
        warnings.append(f"so short that its {len(indices)} samples show only {plural(different, 'frame')}")
    last = wanted.since(times)[-1]
    if wanted.span is not None and last + 1 < wanted.span.end < math.inf:
        warnings.append(f"its part {wanted.span} (seconds) ends after the last frame, which is at {last:.2f} s")
    if video.n_streams > 1:
        warnings.append(f"{video.n_streams} video streams: only number {video.number} is used")
    if video.cut_short:
        warnings.append(f"cut short: {video.cut_short}")
    if video.high_range:
        warnings.append(f"high dynamic range ({video.high_range}): colours are not mapped to a common screen's")
    if claimed and claimed != decoded:
        warnings.append(f"header claims {claimed} frames, {decoded} decode")
    if damage.corrupt or damage.undecodable:
        warnings.append(f"{damage.corrupt} damaged frames left out, {damage.undecodable} packets did not decode")
    return DecodedClip(
        frames=frames, frame_index=indices, pts_seconds=times[indices], ledger=ledger | {"warnings": warnings}
    )


def _times(video: Video, times: Sequence[float | None]) -> tuple[NDArray[np.float64], list[str]]:
    """Return the time of every frame; missing times are derived from the nominal rate, with a warning."""
    known = {number: time for number, time in enumerate(times) if time is not None}
    if len(known) == len(times):
        return _in_order(np.array(times, dtype=np.float64)), []
    by_rate = np.arange(len(times)) / video.rate
    if not known:
        return by_rate, [f"no time stamps: times are frame number / {video.rate:g}"]
    numbers = list(known)
    late = np.interp(range(len(times)), numbers, np.array(list(known.values())) - by_rate[numbers])
    without = plural(len(times) - len(known), "frame has", "frames have")
    return _in_order(by_rate + late), [f"{without} no time stamp: their times are by those of others"]


def _in_order(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the times of frames in the order shown, for containers that store decoding times (H.264 in AVI).

    If times are further out of place than a decoder holds frames back, they are damaged or a clock was set back; then
    they are returned unchanged.
    """
    order = np.argsort(times, kind="stable")
    return times[order] if np.abs(order - np.arange(len(times))).max(initial=0) < SET_BACK else times


def _is_variable(times: NDArray[np.float64]) -> bool:
    """Say whether frame durations differ by more than a millisecond of rounding and 1 %."""
    gaps = np.diff(times)
    return bool(gaps.size and gaps.max() - gaps.min() > 0.002 + 0.01 * float(np.median(gaps)))
