"""Decode sampled frames of one video; the only home of PyAV."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fitrec_cache.errors import VideoError
from fitrec_cache.truncation import is_cut

#: A clip of which less than this share of the frames its container holds can be decoded is failed, not guessed.
MIN_DECODED_SHARE = 0.5

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
    """What one sequential decode of a stream saw."""

    pictures: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    times: list[float | None] = field(default_factory=list)
    undecodable: int = 0
    corrupt: int = 0
    rotation: int = 0
    interlaced: bool = False
    cut_short: str = ""


def decoder_version() -> str:
    """Return the versions of the libraries that decide what a decoded frame looks like."""
    parts = ("libavcodec", "libavformat", "libswscale")
    return ", ".join(f"{p} {'.'.join(map(str, av.library_versions[p]))}" for p in parts)


def read_frames(path: Path, *, sampler: Sampler, short_side: int) -> DecodedClip:
    """Decode a video once and return the frames that ``sampler`` chooses.

    Which frames are wanted depends on how many really decode, and that is known only at the end. The packets are
    counted first, without decoding; the frames wanted under that count are kept in one sequential decode; only if the
    number that decoded turns out different is the video decoded again.

    Args:
        path: A video file.
        sampler: Maps the number of frames that decode, at least 1, to the wanted frame numbers.
        short_side: The shorter side of returned frames in pixels is at most this; frames are never enlarged.

    Returns:
        The sampled frames, upright and with square pixels.

    Raises:
        VideoError: If the file is missing, unreadable, not a video, has no picture stream, or too little of it decodes.
    """
    _check_file(path)
    try:
        n_packets, claimed, cut_short = _count_packets(path)
        wanted = sampler(max(n_packets, 1))
        seen = _decode(path, wanted, short_side)
        n_frames = len(seen.times)
        if n_frames == 0:
            raise VideoError(f"no frame decodes: the container holds {n_packets} packets, 0 gave a picture")
        indices = sampler(n_frames)
        if not set(indices.tolist()) <= seen.pictures.keys():
            seen = _decode(path, indices, short_side)
            if len(seen.times) != n_frames:
                raise VideoError(f"decoding is not repeatable: {n_frames} frames, then {len(seen.times)}")
        return _assemble(path, seen, indices, n_packets=n_packets, claimed=claimed, cut_short=cut_short)
    except av.FFmpegError as error:
        raise VideoError(f"cannot be decoded: {error.strerror or error}") from error


def _check_file(path: Path) -> None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise VideoError("not a file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError as error:
        raise VideoError("file not found") from error
    except OSError as error:
        raise VideoError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise VideoError(f"not a path: {error}") from error
    if empty:
        raise VideoError("file is empty (0 bytes)")


def _stream(container: av.container.InputContainer) -> VideoStream:
    """Return the first stream of moving pictures; cover art is not one."""
    art = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & art]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise VideoError(f"no video stream (streams found: {kinds})")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError("no decoder for its video codec")
    # Clips are decoded side by side in processes of their own: one thread each, and the same answer always.
    stream.codec_context.thread_count = 1
    return stream


def _count_packets(path: Path) -> tuple[int, int, str]:
    """Return packets with content, frames the header claims (0 if it does not say), and why reading ended early."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = _stream(container)
        n = 0
        try:
            for packet in container.demux(stream):
                n += packet.size > 0
        except av.FFmpegError as error:
            return n, stream.frames, error.strerror or str(error)
        return n, stream.frames, ""


def _decode(path: Path, indices: NDArray[np.int64], short_side: int) -> _Pass:
    """Decode every frame in order and convert those whose number is in ``indices``."""
    wanted = set(indices.tolist())
    seen = _Pass()
    with av.open(str(path), metadata_errors="replace") as container:
        stream = _stream(container)
        for frame in _frames(container, stream, seen):
            number = len(seen.times)
            if number == 0:
                seen.rotation = int(frame.rotation)
            seen.interlaced = seen.interlaced or bool(frame.interlaced_frame)
            seen.times.append(frame.time)
            if number in wanted:
                seen.pictures[number] = _picture(frame, stream, short_side)
    return seen


def _frames(container: av.container.InputContainer, stream: VideoStream, seen: _Pass) -> Iterator[VideoFrame]:
    """Yield what decodes, in presentation order; frames the decoder had to invent are counted, not yielded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            seen.cut_short = error.strerror or str(error)
            return
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            seen.undecodable += 1
            continue
        for frame in frames:
            if isinstance(frame, VideoFrame):
                if frame.is_corrupt:
                    seen.corrupt += 1
                else:
                    yield frame


def _picture(frame: VideoFrame, stream: VideoStream, short_side: int) -> NDArray[np.uint8]:
    """Convert one frame to RGB ``(H, W, 3)``: scaled down if larger than wanted, square pixels, upright."""
    ratio = stream.sample_aspect_ratio
    width = frame.width * float(ratio) if ratio else float(frame.width)
    scale = min(1.0, short_side / min(width, frame.height))
    size = max(1, round(width * scale)), max(1, round(frame.height * scale))
    picture = frame.reformat(width=size[0], height=size[1], format="rgb24", interpolation="BICUBIC").to_ndarray()
    turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise VideoError(f"rotation of {frame.rotation} degrees is not a multiple of 90")
    return np.ascontiguousarray(np.rot90(picture, turns % 4))


def _assemble(
    path: Path, seen: _Pass, indices: NDArray[np.int64], *, n_packets: int, claimed: int, cut_short: str
) -> DecodedClip:
    decoded = len(seen.times)
    cut_short = cut_short or seen.cut_short or ("file ends before its header says" if is_cut(path) else "")
    expected = max(n_packets, claimed if cut_short else 0)
    if decoded < MIN_DECODED_SHARE * expected:
        raise VideoError(
            f"only {decoded} of {expected} frames decode, at least {MIN_DECODED_SHARE:.0%} are needed"
            + (f" ({cut_short})" if cut_short else "")
        )
    shapes = {p.shape for p in seen.pictures.values()}
    if len(shapes) > 1:
        raise VideoError(f"the picture size changes within the clip: {sorted(shapes)}")
    frames = np.stack([seen.pictures[i] for i in indices.tolist()])
    times, warnings = _times(path, seen.times)
    ledger = _describe(path) | {
        "frames_claimed": claimed,
        "frames_decoded": decoded,
        "frames_corrupt": seen.corrupt,
        "packets_undecodable": seen.undecodable,
        "duration_seconds": round(float(times[-1] - times[0]), 6),
        "variable_frame_rate": _is_variable(times),
        "rotation_degrees": seen.rotation % 360,
        "interlaced": seen.interlaced,
        "repeated_samples": len(indices) - len(set(indices.tolist())),
    }
    if cut_short:
        warnings.append(f"cut short: {cut_short}")
    if claimed and claimed != decoded:
        warnings.append(f"header claims {claimed} frames, {decoded} decode")
    if seen.corrupt or seen.undecodable:
        warnings.append(f"{seen.corrupt} damaged frames left out, {seen.undecodable} packets did not decode")
    return DecodedClip(
        frames=frames, frame_index=indices, pts_seconds=times[indices], ledger=ledger | {"warnings": warnings}
    )


def _times(path: Path, times: Sequence[float | None]) -> tuple[NDArray[np.float64], list[str]]:
    """Return the time of every frame; without time stamps, frame number / nominal rate, and a warning."""
    if all(t is not None for t in times):
        return np.array(times, dtype=np.float64), []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = _stream(container)
        rate = float(stream.average_rate or stream.base_rate or 25)
    return np.arange(len(times)) / rate, [f"no time stamps: times are frame number / {rate:g}"]


def _is_variable(times: NDArray[np.float64]) -> bool:
    """Say whether frame durations differ by more than a millisecond of rounding and 1 %."""
    gaps = np.diff(times)
    return bool(gaps.size and gaps.max() - gaps.min() > 0.002 + 0.01 * float(np.median(gaps)))


def _describe(path: Path) -> dict[str, Any]:
    with av.open(str(path), metadata_errors="replace") as container:
        stream = _stream(container)
        context = stream.codec_context
        return {
            "container": container.format.name,
            "codec": context.name,
            "pixel_format": context.pix_fmt or "unknown",
            "width": context.width,
            "height": context.height,
            "video_streams": len(container.streams.video),
        }
