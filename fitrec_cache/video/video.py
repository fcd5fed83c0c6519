"""Decode sampled frames of one video."""

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

#: A clip of which less than this share of the frames its container holds can be decoded is failed, not guessed.
MIN_DECODED_SHARE = 0.5

#: Packets in a row whose times may be damaged.
_FAR_AHEAD = 3

#: Pixels are as wide as high, or in some formats up to three times either way; much more is a damaged header.
MOST_STRETCHED = 8

Sampler = Callable[[int], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class DecodedClip:
    """Sampled frames of one clip and what was learned while decoding it.

    Attributes:
        frames: uint8 ``(T, H, W, 3)``, RGB, upright, square pixels.
        frame_index: int64 ``(T,)``, non-decreasing positions among the frames that decode.
        pts_seconds: float64 ``(T,)``, presentation times as the container gives them.
        ledger: What was found: container, codec, frames claimed and decoded, rotation, warnings.
    """

    frames: NDArray[np.uint8]
    frame_index: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    ledger: dict[str, Any]


@dataclass
class _Pass:
    """What decoding a stream showed. ``verified``: frames that did decode; None: all of ``times``."""

    pictures: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    times: list[float | None] = field(default_factory=list)
    verified: int | None = None
    damage: Damage = field(default_factory=Damage)
    rotation: int = 0
    mirrored: bool = False
    interlaced: bool = False

    def note_orientation(self, frame: VideoFrame) -> None:
        matrix = _display_matrix(frame)
        self.rotation = 0 if np.array_equal(matrix, np.eye(2)) else int(frame.rotation)
        self.mirrored = bool(np.linalg.det(matrix) < 0)


@dataclass(frozen=True)
class _Wanted:
    """Which frames are wanted, once it is known when each is shown; ``start``: when the first packet's is, if known."""

    sampler: Sampler
    span: Span | None
    start: float | None

    def among(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of the wanted frames, of which ``times`` has a second for each."""
        if self.span is None:
            return self.sampler(len(times))
        inside = self.inside(times, self.span)
        if not inside.size:
            last = self.since(times)[-1]
            raise VideoError(f"no frame in its part {self.span} (seconds): the last of the file is at {last:.2f} s")
        return inside[self.sampler(inside.size)]

    def inside(self, times: NDArray[np.float64], span: Span) -> NDArray[np.int64]:
        """Return the numbers of the frames in a part."""
        since = np.round(self.since(times), 3)  # as the part's times are
        return np.flatnonzero((since >= span.start) & (since < span.end))

    def since(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the seconds since the first packet's time, or the first frame's if that packet has none."""
        first = float(times[0])
        return times - (first if self.start is None else min(self.start, first))


@dataclass(frozen=True)
class _Plan:
    """Times of all frames in order, in the stream's units; what to decode; the number of each wanted time."""

    times: list[int]
    parts: list[Stretch]
    numbers: dict[int, int]


def read_frames(path: Path, *, sampler: Sampler, short_side: int, span: Span | None = None) -> DecodedClip:
    """Decode a video once and return the frames that ``sampler`` chooses.

    Which frames are wanted depends on how many really decode, and that is known only at the end. The packets are
    counted first, without decoding; the frames wanted under that count are kept in one sequential decode; only if the
    number that decoded turns out different is the video decoded again.

    Of a long video (:data:`fitrec_cache.video.keyframes.LONG_PACKETS`) only what the wanted frames need is decoded,
    where its packets allow that with the same result; ``frames_verified`` in the ledger is then less than
    ``frames_decoded``. Anything unexpected on the way, and all of it is decoded.

    Args:
        path: A video file.
        sampler: Maps the number of frames that decode, at least 1, to the wanted frame numbers; of a part, of its own.
        short_side: The shorter side of returned frames in pixels is at most this; frames are never enlarged.
        span: Of which part the frames are; None: of all.

    Returns:
        The sampled frames, upright and with square pixels.

    Raises:
        VideoError: If the file is missing, unreadable, not a video, has no picture stream, too little of it decodes, or
            no frame is in the part.
    """
    try:
        with _open(path, span) as video:
            promised = None if span is None else _promised(video)
            wanted = _Wanted(sampler, span, None if span is None else _first_time(video))
            indices = _expected(video, wanted, promised)
            plan = _plan(video, indices)
            seen = _decode(video, indices, short_side) if plan is None else _decode_needed(video, plan, short_side)
        if seen is None:  # not as the packets promised
            with _open(path, span) as video:
                seen = _decode(video, indices, short_side)
        n_frames = len(seen.times)
        if n_frames == 0:
            raise VideoError(_no_frame(video))
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
    """Return when each frame is shown, in seconds, if every packet gives one; None if the packets do not say."""
    known = [pts for pts in video.listing.pts if pts is not None]
    if _is_set_back(known):
        raise VideoError(
            "its clock is set back on the way, as where recordings were joined, so that times do not tell its parts: "
            "cut it there, into files of their own"
        )
    known.sort()
    return np.array([video.seconds(pts) for pts in known]) if known and len(known) == video.n_packets else None


def _first_time(video: Video) -> float | None:
    """Return from when on the times of parts count, in seconds: the earliest that a packet says, if any does."""
    return min((video.seconds(pts) for pts in video.listing.pts if pts is not None), default=None)


def _is_set_back(known: Sequence[int]) -> bool:
    """Say whether times, in decoding order, begin again; where each packet is a field, there are two a frame.

    A few packets with times far ahead, as damage makes them, are not what the others are behind.
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


def _no_frame(video: Video) -> str:
    """Say that no packet gave a picture, and what to do."""
    told = f"no frame decodes: the container holds {plural(video.n_packets, 'packet')}, 0 gave a picture"
    if is_encrypted(video.path):
        return f"{told}, as its pictures are encrypted: give a copy without copy protection"
    return f"{told}{f' ({video.cut_short})' * bool(video.cut_short)}: copy or download it again"


def _are_fields(video: Video, seen: _Pass) -> bool:
    """Say whether each packet is one field of two, as of camcorders."""
    found = len(seen.times) + seen.damage.corrupt + seen.damage.undecodable
    return seen.interlaced and not video.claimed and found <= -(-video.n_packets // 2)


def _check_whole(video: Video, seen: _Pass) -> None:
    decoded, packets = len(seen.times), video.n_packets
    if _are_fields(video, seen):
        packets = -(-packets // 2)
    expected = max(packets, (video.claimed or round(video.lasts * video.rate)) if video.cut_short else 0)
    if decoded < MIN_DECODED_SHARE * expected:
        raise VideoError(
            f"only {decoded} of {expected} frames decode, at least {MIN_DECODED_SHARE:.0%} are needed"
            + (f" ({video.cut_short}): copy or download it again" if video.cut_short else "")
        )


def _check_part(
    video: Video, wanted: _Wanted, span: Span, times: NDArray[np.float64], promised: NDArray[np.float64]
) -> None:
    decoded, expected = (len(wanted.inside(known, span)) for known in (times, promised))
    if video.cut_short:  # frames behind the last packet that is there
        there = float(wanted.since(promised)[-1]) + 1 / video.rate
        expected += max(0, round((min(span.end, video.lasts) - max(span.start, there)) * video.rate))
    if decoded < MIN_DECODED_SHARE * expected:
        raise VideoError(f"only {decoded} of {expected} frames of its part decode, {MIN_DECODED_SHARE:.0%} are needed")


def _expected(video: Video, wanted: _Wanted, promised: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """Return the numbers of the wanted frames if every packet gives one; none of a part that cannot be found so."""
    if wanted.span is None:
        return wanted.sampler(max(video.n_packets, 1))
    return np.array([], dtype=np.int64) if promised is None else wanted.among(promised)


def _decode(video: Video, indices: NDArray[np.int64], short_side: int) -> _Pass:
    """Decode every frame in order and convert those whose number is in ``indices``."""
    wanted, converter = set(indices.tolist()), Converter(video.stream, short_side)
    seen = _Pass()
    for frame in sound_frames(video.stream.codec_context, video.packets(), seen.damage):
        number = len(seen.times)
        if number == 0:
            seen.note_orientation(frame)
        seen.interlaced = seen.interlaced or bool(frame.interlaced_frame)
        seen.times.append(frame.time)
        if number in wanted:
            seen.pictures[number] = converter.picture(frame)
    return seen


def _plan(video: Video, indices: NDArray[np.int64]) -> _Plan | None:
    """Return what the frames with these numbers need; None where all must be decoded to be sure of the same frames."""
    if video.n_packets < LONG_PACKETS or video.cut_short:
        return None
    notes = video.notes()
    times = presentation_order(notes) if video.claimed in (0, len(notes)) else None
    parts = stretches(notes, [times[i] for i in indices.tolist()]) if times else None
    return _Plan(times, parts, {times[i]: i for i in indices.tolist()}) if times and parts else None


def _decode_needed(video: Video, plan: _Plan, short_side: int) -> _Pass | None:
    """Decode a plan's stretches; None if one of them gives anything but the frames it must."""
    seen = _Pass(times=[video.seconds(t) for t in plan.times], verified=0)
    converter = Converter(video.stream, short_side)
    if all(_decode_stretch(video, stretch, seen, plan.numbers, converter) for stretch in plan.parts):
        return seen
    return None


def _decode_stretch(
    video: Video, stretch: Stretch, seen: _Pass, numbers: Mapping[int, int], converter: Converter
) -> bool:
    """Decode one stretch and keep its wanted frames; say whether it gave exactly the frames it must."""
    context = video.stream.codec_context
    expected = iter(stretch.expected)
    context.flush_buffers()
    packets = video.packets_between(stretch.start, stretch.stop)
    try:
        for frame in chain.from_iterable(map(context.decode, chain(packets, [None]))):
            if frame.pts is not None and frame.pts < stretch.first_pts:
                continue  # shown before the start: not wanted, and what it refers to was left out
            if frame.pts is None or frame.pts != next(expected, None) or frame.is_corrupt:
                return False
            if not seen.verified:
                seen.note_orientation(frame)
            seen.verified = (seen.verified or 0) + 1
            seen.interlaced = seen.interlaced or bool(frame.interlaced_frame)
            if frame.pts in numbers:
                seen.pictures[numbers[frame.pts]] = converter.picture(frame)
    except av.InvalidDataError:
        return False
    return next(expected, None) is None


class Converter:
    """Turns frames of one stream into pictures, RGB: scaled down if larger than wanted, square pixels, upright.

    Args:
        stream: The stream, which knows the shape of its pixels.
        short_side: The shorter side of a picture in pixels is at most this.
    """

    def __init__(self, stream: VideoStream, short_side: int) -> None:
        self._stream, self._short_side = stream, short_side
        self._scaler = VideoReformatter()  # one for all frames: to make one takes longer than to use it

    def picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return one frame as a picture ``(H, W, 3)``.

        Raises:
            VideoError: If the shape of its pixels cannot be, or the picture is turned by other than quarters.
        """
        ratio = self._stream.sample_aspect_ratio or 1
        if not 1 / MOST_STRETCHED <= ratio <= MOST_STRETCHED:
            raise VideoError(f"its header says that a pixel is {float(ratio):.3g} times as wide as high")
        width = frame.width * float(ratio)
        scale = min(1.0, self._short_side / min(width, frame.height))
        size = max(1, round(width * scale)), max(1, round(frame.height * scale))
        # One thread, as there is a decoder for every core; the same bits as with several.
        coded: NDArray[Any] = self._scaler.reformat(
            frame, width=size[0], height=size[1], format="rgb24", interpolation="BICUBIC", threads=1
        ).to_ndarray()
        return np.ascontiguousarray(_as_shown(coded, _display_matrix(frame)))


def _display_matrix(frame: VideoFrame) -> NDArray[np.int32]:
    """Return what a player does to the coded picture: ``[[a, b], [c, d]]``, signs and zeros.

    A point ``(x, y)``, y downwards, is shown at ``(a x + c y, b x + d y)``. Front cameras write mirrored pictures, so
    an angle alone does not tell.

    Source:
        ISO/IEC 14496-12, 8.3.2, the matrix of a track header.

    Raises:
        VideoError: If it is not a turn by quarters, mirrored or not.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2, dtype=np.int32)
    matrix = np.frombuffer(bytes(data), dtype=np.int32).reshape(3, 3)[:2, :2].astype(np.int64)
    if not matrix.any():  # of a writer that left it out
        return np.eye(2, dtype=np.int32)
    signs = np.where(np.abs(matrix) > np.abs(matrix).max() / 1000, np.sign(matrix), 0)
    if not any(np.array_equal(np.abs(signs), turn) for turn in (np.eye(2), 1 - np.eye(2))):
        raise VideoError(f"rotation of {frame.rotation} degrees is not a multiple of 90")
    return signs.astype(np.int32)


def _as_shown(picture: NDArray[Any], matrix: NDArray[np.int32]) -> NDArray[Any]:
    """Turn and mirror a picture ``(H, W, 3)`` as ``matrix`` (:func:`_display_matrix`) says."""
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
    first = _first_time(video) if wanted.start is None else wanted.start
    different = len(set(indices.tolist()))
    shapes = {p.shape for p in seen.pictures.values()}
    if len(shapes) > 1:
        raise VideoError(f"the picture size changes within the clip: {sorted(shapes)}")
    frames = np.stack([seen.pictures[i] for i in indices.tolist()])
    ledger = video.description | {
        "frames_claimed": claimed,
        "frames_decoded": decoded,
        "frames_verified": decoded if seen.verified is None else seen.verified,
        "frames_hidden": video.listing.n_hidden,
        "frames_corrupt": damage.corrupt,
        "packets_undecodable": damage.undecodable,
        "starts_at_seconds": float(times[0]) if first is None else min(first, float(times[0])),  # its parts count so
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
    """Return the time of every frame; without time stamps, times by the nominal rate, and a warning."""
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
    """Return the times of frames as shown, where a container tells when packets are decoded (H.264 in AVI).

    Times further away from their place than a decoder holds frames back are of damage, or of a clock that was set back.
    """
    order = np.argsort(times, kind="stable")
    return times[order] if np.abs(order - np.arange(len(times))).max(initial=0) < SET_BACK else times


def _is_variable(times: NDArray[np.float64]) -> bool:
    """Say whether frame durations differ by more than a millisecond of rounding and 1 %."""
    gaps = np.diff(times)
    return bool(gaps.size and gaps.max() - gaps.min() > 0.002 + 0.01 * float(np.median(gaps)))
