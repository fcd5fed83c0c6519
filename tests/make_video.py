"""Tiny videos whose frames carry their own number, so that tests have a ground truth of their own.

A frame shows four coloured corners (red, green, blue, yellow, clockwise from the top left) and, between them, 4 x 4 big
black or white blocks: 12 bits of the frame number and 4 bits of a checksum, row by row, the highest bit first. All
positions are fractions of the frame, so the number survives scaling (64 px is fine), JPEG, lossy codecs and turning
back. Blended blocks always raise; of turned, mirrored or cropped frames the checksum catches about 15 in 16, so ask
``read_corners`` which way up a frame is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

Image = NDArray[np.uint8]

CORNERS = {"red": (220, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 220), "yellow": (230, 220, 20)}
BITS = 12
GRID = 4  # blocks along each side: 12 bits of number, then 4 of checksum
AUDIO_RATE = 16000  # Hz
EDGE = 0.2  # share of the width and height that a corner marker takes
CODEC_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "crf": "18"},
    "libx265": {"preset": "ultrafast", "crf": "18", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
    "mpeg4": {"qmin": "2", "qmax": "4"},
}


def _checksum(number: int) -> int:
    return (11 * (number & 15) + 7 * (number >> 4 & 15) + 3 * (number >> 8) + 5) & 15


def _cells(height: int, width: int, *, inner: float) -> Iterator[tuple[slice, slice]]:
    """Yield (rows, columns) of each block; ``inner`` is the share of a block that is taken, around its middle."""
    step = (1 - 2 * EDGE) / GRID
    for row in range(GRID):
        for column in range(GRID):
            yield _span(EDGE + step * row, step, inner, height), _span(EDGE + step * column, step, inner, width)


def _span(start: float, length: float, inner: float, size: int) -> slice:
    first = round((start + length * (1 - inner) / 2) * size)
    return slice(first, max(first + 1, round((start + length * (1 + inner) / 2) * size)))


def frame_image(number: int, width: int, height: int) -> Image:
    """Return the picture of frame ``number`` (0..4095): uint8, shape (height, width, 3), RGB."""
    if not 0 <= number < 1 << BITS:
        raise ValueError(f"number {number}: expected 0 to {(1 << BITS) - 1}")
    image = np.full((height, width, 3), 128, dtype=np.uint8)
    rows, columns = round(EDGE * height), round(EDGE * width)
    red, green, blue, yellow = CORNERS.values()
    image[:rows, :columns], image[:rows, width - columns :] = red, green
    image[height - rows :, width - columns :], image[height - rows :, :columns] = blue, yellow
    word = number << 4 | _checksum(number)
    for bit, cell in zip(range(GRID * GRID - 1, -1, -1), _cells(height, width, inner=1.0), strict=True):
        image[cell] = 255 * (word >> bit & 1)
    return image


def read_number(frame: Image) -> int:
    """Return the number drawn into an upright frame, uint8 (H, W, 3); ValueError if it cannot be read for certain."""
    word = 0
    for cell in _cells(frame.shape[0], frame.shape[1], inner=0.5):
        level = float(frame[cell].mean())
        if 100 < level < 155:
            raise ValueError(
                f"a block has level {level:.0f}: expected black or white; is this one upright, whole frame?"
            )
        word = word << 1 | (level > 127)
    number = word >> 4
    if word & 15 != _checksum(number):
        raise ValueError(f"read {number}, but its checksum differs; is the frame upright and whole?")
    return number


def read_corners(frame: Image) -> tuple[str, str, str, str]:
    """Return the colour names of the corners: top left, top right, bottom right, bottom left."""
    height, width = frame.shape[:2]
    top, bottom = (_span(start, EDGE, 0.5, height) for start in (0, 1 - EDGE))
    left, right = (_span(start, EDGE, 0.5, width) for start in (0, 1 - EDGE))
    return (
        _colour_name(frame[top, left]),
        _colour_name(frame[top, right]),
        _colour_name(frame[bottom, right]),
        _colour_name(frame[bottom, left]),
    )


def _colour_name(patch: Image) -> str:
    colour = patch.reshape(-1, 3).mean(axis=0)  # (3,)
    return min(CORNERS, key=lambda name: float(np.abs(colour - np.array(CORNERS[name])).sum()))


def write_video(
    path: Path,
    n_frames: int,
    *,
    width: int = 128,
    height: int = 96,
    fps: int | Fraction = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    gop: int = 12,
    b_frames: int = 0,
    pts: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    numbers: Iterable[int] | None = None,
    pixel: Fraction | None = None,
) -> Path:
    """Write frames 0..n_frames-1 to ``path`` (the ending picks the container) and return it.

    Args:
        width: Width in pixels as SHOWN; with ``rotation`` 90 or 270 the coded width is ``height``.
        height: Height in pixels as shown.
        rotation: Degrees clockwise by which a player must turn the coded picture to show it upright (the old ``rotate``
            tag; PyAV's ``frame.rotation`` is minus this); not for .avi.
        pts: Presentation time of each frame in ms, for a variable frame rate; not for .avi.
        options: Codec options, added to the defaults in CODEC_OPTIONS.
        numbers: The numbers to draw instead of 0, 1, 2, ...
        pixel: How many times as wide as high a pixel is shown, as the header says; None: it does not say.
    """
    if pts is not None and (len(pts) != n_frames or path.suffix == ".avi"):
        raise ValueError(f"pts: expected {n_frames} times and a container other than .avi")
    drawn = range(n_frames) if numbers is None else list(numbers)[:n_frames]
    turns = _quarter_turns(rotation, path)
    with av.open(str(path), "w") as container:
        size = (height, width) if turns % 2 else (width, height)
        stream = _video_stream(container, codec, fps, size, pix_fmt, gop, b_frames, options)
        base = Fraction(1, 1000) if pts is not None else 1 / Fraction(fps)
        if turns:
            stream.set_display_rotation(-rotation)  # PyAV counts counter-clockwise
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        # np.rot90 turns counter-clockwise, the player turns clockwise.
        pictures = (np.rot90(frame_image(number, width, height), turns) for number in drawn)
        _encode(container, stream, pictures, range(n_frames) if pts is None else pts, base)
    return path


def _quarter_turns(rotation: int, path: Path) -> int:
    if rotation not in (0, 90, 180, 270) or (rotation and path.suffix == ".avi"):
        raise ValueError(f"rotation {rotation} in {path.suffix}: expected 0, or 90, 180, 270 in anything but .avi")
    return rotation // 90


def _video_stream(
    container: av.container.OutputContainer,
    codec: str,
    fps: int | Fraction,
    size: tuple[int, int],
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 0,
    options: Mapping[str, str] | None = None,
) -> av.VideoStream:
    chosen = {**CODEC_OPTIONS.get(codec, {}), **(options or {})}
    if codec in ("libx264", "mpeg4"):
        chosen.setdefault("bf", str(b_frames))
    stream = container.add_stream(codec, rate=Fraction(fps), options=chosen)
    if not isinstance(stream, av.VideoStream):
        raise ValueError(f"codec {codec}: expected a video codec")
    stream.width, stream.height = size
    stream.pix_fmt = pix_fmt
    stream.codec_context.gop_size = gop
    stream.codec_context.thread_count = 1  # the same bytes everywhere
    return stream


def _encode(
    container: av.container.OutputContainer,
    stream: av.VideoStream,
    pictures: Iterable[Image],
    pts: Iterable[int],
    base: Fraction = Fraction(1, 25),
) -> None:
    stream.codec_context.time_base = base
    for picture, time in zip(pictures, pts, strict=True):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = time, base
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _audio_stream(container: av.container.OutputContainer, codec: str) -> av.AudioStream:
    stream = container.add_stream(codec, rate=AUDIO_RATE, layout="mono")
    if not isinstance(stream, av.AudioStream):
        raise ValueError(f"codec {codec}: expected an audio codec")
    return stream


def _encode_tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    times = np.arange(int(AUDIO_RATE * seconds)) / AUDIO_RATE
    tone = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]  # (1, samples)
    for start in range(0, tone.shape[1], 1024):
        block = np.ascontiguousarray(tone[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_audio_only(path: Path, *, seconds: float = 0.5, codec: str = "aac") -> Path:
    """Write a file with one audio stream (a 440 Hz tone) and no video stream."""
    with av.open(str(path), "w") as container:
        _encode_tone(container, _audio_stream(container, codec), seconds)
    return path


#: Display matrices (a, b, c, d) that mirror, and the colours of the corners that are then shown (:data:`CORNERS`).
MIRRORED = (
    ((1, 0, 0, -1), ("yellow", "blue", "green", "red")),
    ((-1, 0, 0, 1), ("green", "red", "yellow", "blue")),
    ((0, 1, 1, 0), ("red", "yellow", "blue", "green")),  # x and y change places
    ((0, -1, -1, 0), ("blue", "green", "red", "yellow")),
)


def with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Give the first track of an MP4 file another display matrix ``(a, b, c, d)``, and return the file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # the matrix of a track header of version 0: 16.16, the third column 2.30
    a, b, c, d = (v * 65536 for v in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_video_with_second_stream(
    path: Path,
    n_frames: int,
    *,
    width: int = 128,
    height: int = 96,
    kind: str = "audio",
    second_is_default: bool = False,
) -> Path:
    """Write H.264 frames 0..n_frames-1 (.mp4, .mov, .mkv) beside a second stream.

    Args:
        kind: "audio": a tone, as stream 0, so that the video is not the first stream of the file. "video": a second
            video as stream 1, of half the size, whose frames are numbered from 1000.
        second_is_default: Mark the second video, and not the first, as the one that players show.
    """
    with av.open(str(path), "w") as container:
        sound = _audio_stream(container, "aac") if kind == "audio" else None
        main = _video_stream(container, "libx264", 25, (width, height))
        other = _video_stream(container, "libx264", 25, (width // 2, height // 2)) if kind == "video" else None
        if other is not None and second_is_default:
            other.disposition = Disposition.default
        container.start_encoding()
        _encode(container, main, (frame_image(number, width, height) for number in range(n_frames)), range(n_frames))
        if sound is not None:
            _encode_tone(container, sound, n_frames / 25)
        if other is not None:
            pictures = (frame_image(1000 + number, width // 2, height // 2) for number in range(n_frames))
            _encode(container, other, pictures, range(n_frames))
    return path


def write_with_cover_art(path: Path, n_frames: int, *, width: int = 128, height: int = 96) -> Path:
    """Write an .mp4 of H.264 frames 0..n_frames-1 with a red JPEG of 32 x 32 px as cover art.

    The cover is a second video stream of one frame (index 1, disposition ``attached_pic``).
    """
    if path.suffix != ".mp4":
        raise ValueError(f"cover art in {path.suffix}: expected .mp4, the other containers drop it")
    with av.open(str(path), "w") as container:
        stream = _video_stream(container, "libx264", 25, (width, height))
        cover = _video_stream(container, "mjpeg", 25, (32, 32), pix_fmt="yuvj420p")
        cover.disposition = Disposition.attached_pic
        _encode(container, cover, [np.full((32, 32, 3), CORNERS["red"], dtype=np.uint8)], range(1))
        _encode(container, stream, (frame_image(number, width, height) for number in range(n_frames)), range(n_frames))
    return path
